locals {
  # What is placed in `local.project` waits until the project's services are enabled.
  project = one(distinct([for service in google_project_service.needed : service.project]))
}

resource "google_project_service" "needed" {
  for_each = toset([
    "artifactregistry.googleapis.com", # the functions' images
    "cloudbuild.googleapis.com",       # building them
    "cloudfunctions.googleapis.com",
    "cloudresourcemanager.googleapis.com", # roles on the project
    "cloudscheduler.googleapis.com",
    "cloudtasks.googleapis.com",
    "firestore.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com", # signing media URLs without a key file
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
  ])

  project            = var.project
  service            = each.value
  disable_on_destroy = false # others in the project may use it
}
