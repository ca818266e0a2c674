resource "google_cloud_scheduler_job" "schedule" {
  for_each = local.schedules

  project          = local.project
  region           = var.region
  name             = each.key
  description      = "Calls ${local.names[each.value.function]} at ${each.value.path}"
  schedule         = each.value.cron
  time_zone        = each.value.timeZone
  attempt_deadline = "${each.value.attemptDeadlineSeconds}s"

  retry_config {
    retry_count          = each.value.retryCount
    min_backoff_duration = "5s"
    max_backoff_duration = "60s"
  }

  http_target {
    uri         = "${local.urls[each.value.function]}${each.value.path}"
    http_method = "POST"
    headers     = { "Content-Type" = "application/json" }
    body        = base64encode(jsonencode(try(each.value.body, {})))

    oidc_token {
      service_account_email = google_service_account.scheduler.email
      audience              = local.urls[each.value.function] # of the function, whatever the path
    }
  }

  depends_on = [google_cloud_run_service_iam_member.invokes]
}
