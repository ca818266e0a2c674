resource "google_firestore_database" "records" {
  project                           = local.project
  name                              = var.database
  location_id                       = coalesce(var.database_location, var.region)
  type                              = "FIRESTORE_NATIVE"
  database_edition                  = "STANDARD"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED" # any minute of the last 7 days
  delete_protection_state           = "DELETE_PROTECTION_ENABLED"
  deletion_policy                   = "PREVENT" # whether a post is out is known nowhere else
}

resource "google_firestore_backup_schedule" "daily" {
  project   = local.project
  database  = google_firestore_database.records.name
  retention = "${var.backup_kept_days * 24 * 60 * 60}s"

  daily_recurrence {}
}

# Roles on Firestore are given on the project; the condition narrows this one to our database.
resource "google_project_iam_member" "keeps_records" {
  for_each = local.functions

  project = local.project
  role    = "roles/datastore.user"
  member  = google_service_account.function[each.key].member

  condition {
    title      = "Only the database ${google_firestore_database.records.name}"
    expression = "resource.name == \"projects/${local.project}/databases/${google_firestore_database.records.name}\""
  }
}
