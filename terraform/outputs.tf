output "function_urls" {
  description = "Where each function answers; also the audience of the tokens that it is called with."
  value       = local.urls
  depends_on  = [google_cloudfunctions2_function.function, google_cloud_run_service_iam_member.invokes]
}

output "queues" {
  description = "Full names of the queues."
  value       = { for name, queue in google_cloud_tasks_queue.queue : name => queue.id }
}

output "accounts" {
  description = "Which account each function runs as, and which accounts call them."
  value = merge(
    { for name, account in google_service_account.function : name => account.email },
    { tasks = google_service_account.tasks.email, scheduler = google_service_account.scheduler.email },
  )
}

output "media_bucket" {
  description = "Where the product puts media: gs://BUCKET/NAME."
  value       = google_storage_bucket.media.name
}

output "files_bucket" {
  description = "Where files to import are put and exports lie."
  value       = one(google_storage_bucket.files[*].name)
}

output "dashboard" {
  description = "The figures."
  value       = "https://console.cloud.google.com/monitoring/dashboards?project=${var.project}"
  depends_on  = [google_monitoring_dashboard.overview]
}

output "first_post" {
  description = "Commands that connect an account and schedule a first post. They need roles/iam.serviceAccountTokenCreator on the backend's account."
  value       = <<-EOT
    BACKEND=${sort(var.backend_callers)[0]}
    URL=${local.urls["schedule_post"]}
    TOKEN=$(gcloud auth print-identity-token --impersonate-service-account="$BACKEND" --include-email --audiences="$URL")
    SECRET=$(gcloud secrets versions access ${var.webhook_secret.version} --secret=${var.webhook_secret.secret} --project=${var.project})

    curl -sS -X POST "$URL/accounts/connect" -H "Authorization: Bearer $TOKEN" -H "X-Webhook-Secret: $SECRET" \
      -H 'Content-Type: application/json' -d '${local.first_account}'

    curl -sS -X POST "$URL/schedule" -H "Authorization: Bearer $TOKEN" -H "X-Webhook-Secret: $SECRET" \
      -H 'Content-Type: application/json' -d '${local.first_post}'

    curl -sS "$URL/posts?companyId=acme" -H "Authorization: Bearer $TOKEN" -H "X-Webhook-Secret: $SECRET"
  EOT
  depends_on = [
    google_cloudfunctions2_function.function,
    google_cloud_run_service_iam_member.invokes,
    google_cloud_tasks_queue_iam_member.creates_tasks,
    google_service_account_iam_member.acts_as_tasks,
    google_project_iam_member.keeps_records,
    google_firestore_index.composite,
  ]
}

locals {
  first_account = jsonencode({
    companyId      = "acme"
    accountId      = "acme-linkedin"
    platform       = "linkedin"
    platformUserId = "urn:li:person:YOUR_ID"
    accessToken    = "YOUR_TOKEN"
  })
  first_post = jsonencode({
    companyId      = "acme"
    userId         = "me"
    content        = "Hello from TendSocial"
    scheduledAt    = "2030-01-01T09:00:00"
    timezone       = "Europe/Berlin"
    idempotencyKey = "first-post"
    platforms      = [{ platform = "linkedin", accountId = "acme-linkedin" }]
  })
}
