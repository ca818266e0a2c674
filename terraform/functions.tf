locals {
  app_settings = merge(flatten([
    for platform, app in var.platforms : [
      app.client_id == null ? {} : { "${upper(platform)}_CLIENT_ID" = app.client_id },
      app.api_version == null ? {} : { "${upper(platform)}_API_VERSION" = app.api_version },
    ]
  ])...)

  # function => environment; `shared/config.py` reads it
  settings = {
    for name, function in local.functions : name => merge(
      {
        GCP_PROJECT_ID     = local.project
        GCP_LOCATION       = var.region
        GCP_TASKS_QUEUE    = "default"
        FIRESTORE_DATABASE = google_firestore_database.records.name

        # Cloud Run's IAM check stands before each function: it verifies tokens and hands them on
        # without their signature.
        OIDC_SIGNATURES   = "removed"
        IAM_STANDS_BEFORE = "true"

        # The buildpack's server takes 4 threads per CPU unless told how many requests come at once.
        THREADS = tostring(function.concurrency)
      },
      contains(function.callers, "tasks") || contains(function.uses, "createTasks") ? {
        TASKS_SERVICE_ACCOUNT = google_service_account.tasks.email
      } : {},
      contains(function.callers, "backend") ? { BACKEND_CALLERS = join(",", sort(var.backend_callers)) } : {},
      contains(function.uses, "createTasks") && var.alert_webhook.url != "" ? { ALERT_WEBHOOK_URL = var.alert_webhook.url } : {},
      contains(function.callers, "viewer") ? { CONSOLE_VIEWERS = join(",", sort(var.console.viewers)) } : {},
      contains(function.callers, "operator") ? { CONSOLE_OPERATORS = join(",", sort(var.console.operators)) } : {},
      contains(function.callers, "admin") ? { CONSOLE_ADMINS = join(",", sort(var.console.admins)) } : {},
      contains(function.callers, "scheduler") ? { SCHEDULER_CALLERS = google_service_account.scheduler.email } : {},
      contains(function.uses, "platforms") ? local.app_settings : {},
      contains(function.uses, "media") ? { MEDIA_BUCKET = google_storage_bucket.media.name } : {},
      contains(function.uses, "files") ? { BULK_BUCKET = google_storage_bucket.files[0].name } : {},
    )
  }

  # role in the topology => who has it
  callers = {
    tasks     = { tasks = google_service_account.tasks.member }
    scheduler = { scheduler = google_service_account.scheduler.member }
    backend   = { for email in var.backend_callers : email => "serviceAccount:${email}" }
    viewer    = { for email in var.console.viewers : email => "${endswith(email, ".gserviceaccount.com") ? "serviceAccount" : "user"}:${email}" }
    operator  = { for email in var.console.operators : email => "${endswith(email, ".gserviceaccount.com") ? "serviceAccount" : "user"}:${email}" }
    admin     = { for email in var.console.admins : email => "${endswith(email, ".gserviceaccount.com") ? "serviceAccount" : "user"}:${email}" }
  }
  invokers = merge(flatten([
    for name, function in local.functions : [
      for role in function.callers : {
        for caller, member in local.callers[role] : "${name}/${caller}" => { function = name, member = member }
      }
    ]
  ])...)
}

resource "google_cloudfunctions2_function" "function" {
  for_each = local.functions

  project     = local.project
  location    = var.region
  name        = local.names[each.key]
  description = each.value.description
  labels      = var.labels

  build_config {
    runtime         = local.topology.runtime
    entry_point     = each.key
    service_account = google_service_account.builder.id

    source {
      storage_source {
        bucket = google_storage_bucket.sources.name
        object = google_storage_bucket_object.source[each.key].name
      }
    }
  }

  service_config {
    service_account_email            = google_service_account.function[each.key].email
    available_memory                 = each.value.memory
    available_cpu                    = each.value.cpu
    max_instance_request_concurrency = each.value.concurrency
    min_instance_count               = each.value.minInstances
    max_instance_count               = each.value.maxInstances
    timeout_seconds                  = each.value.timeoutSeconds
    environment_variables            = local.settings[each.key]
    all_traffic_on_latest_revision   = true

    # IAM is the door. Internal ingress alone would shut the backend out.
    ingress_settings = "ALLOW_ALL"

    dynamic "secret_environment_variables" {
      for_each = local.secrets[each.key]

      content {
        key        = secret_environment_variables.key
        project_id = local.project
        secret     = secret_environment_variables.value.secret
        version    = secret_environment_variables.value.version
      }
    }
  }

  # A revision that may not read its secrets does not start.
  depends_on = [google_secret_manager_secret_iam_member.reads, time_sleep.builder_is_known]
}

# A function is a Cloud Run service, and the service is what is called.
resource "google_cloud_run_service_iam_member" "invokes" {
  for_each = local.invokers

  project  = local.project
  location = var.region
  service  = google_cloudfunctions2_function.function[each.value.function].name
  role     = "roles/run.invoker"
  member   = each.value.member
}
