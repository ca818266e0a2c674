# What changes when a variable does. Each run plans only what it looks at.

mock_provider "google" {}
mock_provider "archive" {}
mock_provider "time" {}

variables {
  project         = "acme-jobs-test"
  backend_callers = ["backend@acme-test.iam.gserviceaccount.com"]
  alert_emails    = ["oncall@example.com"]
}

run "a_queue_is_paused" {
  command = plan

  plan_options {
    target = [google_cloud_tasks_queue.queue]
  }
  variables {
    paused_queues = ["publish-twitter"]
  }

  assert {
    condition = (
      google_cloud_tasks_queue.queue["publish-twitter"].desired_state == "PAUSED" &&
      google_cloud_tasks_queue.queue["publish-linkedin"].desired_state == "RUNNING"
    )
    error_message = "The queue that is named stands still, the others run."
  }
}

run "the_webhook_secret_is_rotated" {
  command = plan

  plan_options {
    target = [google_secret_manager_secret_iam_member.reads]
  }
  variables {
    webhook_secret = { version = "2", previous_version = "1" }
  }

  assert {
    condition = alltrue([
      for secrets in local.secrets :
      secrets.WEBHOOK_SECRET.version == "2" && secrets.WEBHOOK_SECRET_PREVIOUS.version == "1"
    ])
    error_message = "While it is rotated, both versions are valid in every function."
  }
}

run "no_app_is_registered_anywhere" {
  command = plan

  plan_options {
    target = [google_secret_manager_secret_iam_member.reads]
  }

  assert {
    condition     = keys(local.secrets["publish_post"]) == ["TOKEN_KEYS", "WEBHOOK_SECRET"]
    error_message = "Without platforms there are no client secrets to read."
  }
}

run "alerts_go_to_a_channel_that_exists" {
  command = plan

  plan_options {
    target = [google_monitoring_alert_policy.line]
  }
  variables {
    alert_emails          = []
    notification_channels = ["projects/acme-jobs-test/notificationChannels/123"]
  }

  assert {
    condition     = alltrue([for policy in google_monitoring_alert_policy.line : join(" ", policy.notification_channels) == "projects/acme-jobs-test/notificationChannels/123"])
    error_message = "Alerts go to the channel that was given."
  }
}

run "the_database_is_multi_regional" {
  command = plan

  plan_options {
    target = [google_firestore_database.records]
  }
  variables {
    database_location = "eur3"
  }

  assert {
    condition     = google_firestore_database.records.location_id == "eur3"
    error_message = "The database is where it was asked for."
  }
}
