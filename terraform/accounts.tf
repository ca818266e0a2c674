# One account per function, and one each for what calls them: Cloud Tasks and Cloud Scheduler.

resource "google_service_account" "function" {
  for_each = local.functions

  project      = local.project
  account_id   = "fn-${local.names[each.key]}"
  display_name = "Function ${local.names[each.key]}"
  description  = each.value.description
}

resource "google_service_account" "tasks" {
  project      = local.project
  account_id   = "tasks-caller"
  display_name = "Cloud Tasks, calling functions"
}

resource "google_service_account" "scheduler" {
  project      = local.project
  account_id   = "scheduler-caller"
  display_name = "Cloud Scheduler, calling functions"
}

# Whoever creates a task that carries an account's token must be allowed to act as that account.
resource "google_service_account_iam_member" "acts_as_tasks" {
  for_each = local.creates_tasks

  service_account_id = google_service_account.tasks.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.function[each.key].member
}

# URLs of media and files are signed by the account itself, through IAM: no key file exists.
resource "google_service_account_iam_member" "signs_urls" {
  for_each = merge(local.reads_media, local.keeps_files)

  service_account_id = google_service_account.function[each.key].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = google_service_account.function[each.key].member
}

# Who builds the functions' images. New projects have no default account that may.
resource "google_service_account" "builder" {
  project      = local.project
  account_id   = "function-builder"
  display_name = "Cloud Build, building functions"
}

# On the project, because the buckets and the repository that a build uses are made by it.
resource "google_project_iam_member" "builder" {
  for_each = toset([
    "roles/artifactregistry.writer",
    "roles/logging.logWriter",
    "roles/storage.objectAdmin",
  ])

  project = local.project
  role    = each.value
  member  = google_service_account.builder.member
}

# A role takes about a minute to be known everywhere; a build that starts sooner fails.
resource "time_sleep" "builder_is_known" {
  create_duration = "60s"
  triggers        = { account = google_service_account.builder.member }
  depends_on      = [google_project_iam_member.builder]
}
