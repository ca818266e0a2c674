# What each variable refuses. A run plans only a resource that takes the variable.

mock_provider "google" {}
mock_provider "archive" {}
mock_provider "time" {}

variables {
  project         = "acme-jobs-test"
  backend_callers = ["backend@acme-test.iam.gserviceaccount.com"]
  alert_emails    = ["oncall@example.com"]
}

run "project_is_a_name" {
  command = plan

  plan_options {
    target = [google_project_service.needed]
  }
  variables {
    project = "Acme Jobs"
  }

  expect_failures = [var.project]
}

run "region_is_a_zone" {
  command = plan

  plan_options {
    target = [google_cloud_tasks_queue.queue]
  }
  variables {
    region = "europe-west1-b"
  }

  expect_failures = [var.region]
}

run "database_has_capitals" {
  command = plan

  plan_options {
    target = [google_firestore_database.records]
  }
  variables {
    database = "Records"
  }

  expect_failures = [var.database]
}

run "database_location_is_a_continent" {
  command = plan

  plan_options {
    target = [google_firestore_database.records]
  }
  variables {
    database_location = "eu"
  }

  expect_failures = [var.database_location]
}

run "backend_callers_are_nobody" {
  command = plan

  plan_options {
    target = [google_cloud_run_service_iam_member.invokes]
  }
  variables {
    backend_callers = []
  }

  expect_failures = [var.backend_callers]
}

run "backend_callers_are_everybody" {
  command = plan

  plan_options {
    target = [google_cloud_run_service_iam_member.invokes]
  }
  variables {
    backend_callers = ["allUsers"]
  }

  expect_failures = [var.backend_callers]
}

run "alert_emails_are_no_addresses" {
  command = plan

  plan_options {
    target = [google_monitoring_notification_channel.email]
  }
  variables {
    alert_emails = ["oncall"]
  }

  expect_failures = [var.alert_emails]
}

run "alert_emails_reach_nobody" {
  command = plan

  plan_options {
    target = [google_monitoring_notification_channel.email]
  }
  variables {
    alert_emails = []
  }

  expect_failures = [var.alert_emails]
}

run "notification_channels_are_names" {
  command = plan

  plan_options {
    target = [google_monitoring_alert_policy.line]
  }
  variables {
    notification_channels = ["On call"]
  }

  expect_failures = [var.notification_channels]
}

run "webhook_secret_is_a_full_name" {
  command = plan

  plan_options {
    target = [google_secret_manager_secret_iam_member.reads]
  }
  variables {
    webhook_secret = { secret = "projects/acme/secrets/webhook-secret" }
  }

  expect_failures = [var.webhook_secret]
}

run "webhook_secret_is_not_pinned" {
  command = plan

  plan_options {
    target = [google_secret_manager_secret_iam_member.reads]
  }
  variables {
    webhook_secret = { version = "latest" }
  }

  expect_failures = [var.webhook_secret]
}

run "webhook_secret_has_a_previous_version_that_is_not_pinned" {
  command = plan

  plan_options {
    target = [google_secret_manager_secret_iam_member.reads]
  }
  variables {
    webhook_secret = { version = "2", previous_version = "latest" }
  }

  expect_failures = [var.webhook_secret]
}

run "token_keys_are_the_value" {
  command = plan

  plan_options {
    target = [google_secret_manager_secret_iam_member.reads]
  }
  variables {
    token_keys = { secret = "k1:AAAA=" }
  }

  expect_failures = [var.token_keys]
}

run "token_keys_are_not_pinned" {
  command = plan

  plan_options {
    target = [google_secret_manager_secret_iam_member.reads]
  }
  variables {
    token_keys = { version = "latest" }
  }

  expect_failures = [var.token_keys]
}

run "platforms_are_unknown" {
  command = plan

  plan_options {
    target = [google_secret_manager_secret_iam_member.reads]
  }
  variables {
    platforms = { LinkedIn = { client_id = "a" } }
  }

  expect_failures = [var.platforms]
}

run "platforms_have_no_client_id" {
  command = plan

  plan_options {
    target = [google_secret_manager_secret_iam_member.reads]
  }
  variables {
    platforms = { linkedin = { client_id = "" } }
  }

  expect_failures = [var.platforms]
}

run "platforms_have_a_secret_that_is_not_pinned" {
  command = plan

  plan_options {
    target = [google_secret_manager_secret_iam_member.reads]
  }
  variables {
    platforms = { linkedin = { client_id = "a", client_secret = { secret = "s", version = "latest" } } }
  }

  expect_failures = [var.platforms]
}

run "platforms_have_a_version_that_is_no_month" {
  command = plan

  plan_options {
    target = [google_secret_manager_secret_iam_member.reads]
  }
  variables {
    platforms = { linkedin = { api_version = "v2" } }
  }

  expect_failures = [var.platforms]
}

run "platforms_have_a_version_that_none_asks_for" {
  command = plan

  plan_options {
    target = [google_secret_manager_secret_iam_member.reads]
  }
  variables {
    platforms = { twitter = { api_version = "202612" } }
  }

  expect_failures = [var.platforms]
}

run "media_bucket_is_a_uri" {
  command = plan

  plan_options {
    target = [google_storage_bucket.media]
  }
  variables {
    media_bucket = "gs://acme-media"
  }

  expect_failures = [var.media_bucket]
}

run "paused_queues_are_unknown" {
  command = plan

  plan_options {
    target = [google_cloud_tasks_queue.queue]
  }
  variables {
    paused_queues = ["linkedin"]
  }

  expect_failures = [var.paused_queues]
}

run "queue_log_sampling_is_a_percentage" {
  command = plan

  plan_options {
    target = [google_cloud_tasks_queue.queue]
  }
  variables {
    queue_log_sampling = 10
  }

  expect_failures = [var.queue_log_sampling]
}

run "backup_kept_days_is_too_long" {
  command = plan

  plan_options {
    target = [google_firestore_backup_schedule.daily]
  }
  variables {
    backup_kept_days = 99
  }

  expect_failures = [var.backup_kept_days]
}

run "sources_kept_days_is_nothing" {
  command = plan

  plan_options {
    target = [google_storage_bucket.sources]
  }
  variables {
    sources_kept_days = 0
  }

  expect_failures = [var.sources_kept_days]
}

run "deleted_media_kept_days_is_nothing" {
  command = plan

  plan_options {
    target = [google_storage_bucket.media]
  }
  variables {
    deleted_media_kept_days = 0
  }

  expect_failures = [var.deleted_media_kept_days]
}

run "files_kept_days_is_nothing" {
  command = plan

  plan_options {
    target = [google_cloudfunctions2_function.function]
  }
  variables {
    files_kept_days = 0
  }

  expect_failures = [var.files_kept_days]
}

run "alert_thresholds_are_negative" {
  command = plan

  plan_options {
    target = [google_monitoring_alert_policy.figure]
  }
  variables {
    alert_thresholds = { lateness_seconds = -1 }
  }

  expect_failures = [var.alert_thresholds]
}

run "labels_have_capitals" {
  command = plan

  plan_options {
    target = [google_storage_bucket.media]
  }
  variables {
    labels = { App = "jobs" }
  }

  expect_failures = [var.labels]
}

run "console_has_a_group" {
  command = plan

  plan_options {
    target = [google_cloud_run_service_iam_member.invokes]
  }
  variables {
    console = { viewers = ["group:ops@example.com"] }
  }

  expect_failures = [var.console]
}

run "console_names_somebody_twice" {
  command = plan

  plan_options {
    target = [google_cloud_run_service_iam_member.invokes]
  }
  variables {
    console = { viewers = ["a@example.com"], admins = ["a@example.com"] }
  }

  expect_failures = [var.console]
}

run "alert_webhook_is_not_encrypted" {
  command = plan

  plan_options {
    target = [google_secret_manager_secret_iam_member.reads]
  }
  variables {
    alert_webhook = { url = "http://alerts.example.com" }
  }

  expect_failures = [var.alert_webhook]
}

run "alert_webhook_has_a_secret_that_is_not_pinned" {
  command = plan

  plan_options {
    target = [google_secret_manager_secret_iam_member.reads]
  }
  variables {
    alert_webhook = { version = "latest" }
  }

  expect_failures = [var.alert_webhook]
}
