# Everything at once, made up by mocks: `terraform test` needs no project and no credentials.

mock_provider "google" {}
mock_provider "archive" {}
mock_provider "time" {}

variables {
  project         = "acme-jobs-test"
  backend_callers = ["backend@acme-test.iam.gserviceaccount.com", "importer@acme-test.iam.gserviceaccount.com"]
  alert_emails    = ["oncall@example.com"]
  alert_webhook   = { url = "https://alerts.example.com/hook" }
  console = {
    viewers   = ["viewer@example.com"]
    operators = ["operator@example.com"]
    admins    = ["bot@acme-test.iam.gserviceaccount.com"]
  }
  platforms = {
    linkedin = { client_id = "li-app", client_secret = { secret = "linkedin-client-secret", version = "3" }, api_version = "202612" }
    twitter  = { client_id = "x-app" }
  }
}

run "whole" {
  # functions

  assert {
    condition     = toset(keys(google_cloudfunctions2_function.function)) == toset(keys(local.topology.functions))
    error_message = "Each function of the topology is deployed, and no other."
  }
  assert {
    condition = alltrue([
      for name, function in google_cloudfunctions2_function.function :
      function.service_config[0].service_account_email == google_service_account.function[name].email
    ]) && length(distinct([for account in google_service_account.function : account.account_id])) == length(local.functions)
    error_message = "Each function runs as an account of its own."
  }
  assert {
    condition = alltrue([
      for name, function in google_cloudfunctions2_function.function :
      function.name == replace(name, "_", "-") && function.build_config[0].entry_point == name
    ])
    error_message = "Functions are named in kebab-case and enter at their own name."
  }
  assert {
    condition = alltrue([
      for name, function in google_cloudfunctions2_function.function :
      function.service_config[0].max_instance_request_concurrency == local.topology.functions[name].concurrency &&
      function.service_config[0].environment_variables.THREADS == tostring(local.topology.functions[name].concurrency)
    ])
    error_message = "THREADS is the concurrency."
  }
  assert {
    condition = alltrue([
      for name, function in google_cloudfunctions2_function.function :
      function.service_config[0].timeout_seconds == local.topology.functions[name].timeoutSeconds &&
      function.service_config[0].available_memory == local.topology.functions[name].memory &&
      function.service_config[0].available_cpu == local.topology.functions[name].cpu &&
      function.service_config[0].min_instance_count == local.topology.functions[name].minInstances &&
      function.service_config[0].max_instance_count == local.topology.functions[name].maxInstances
    ])
    error_message = "Limits are those of the topology."
  }
  assert {
    condition = alltrue([
      for function in google_cloudfunctions2_function.function :
      function.service_config[0].all_traffic_on_latest_revision &&
      function.service_config[0].environment_variables.OIDC_SIGNATURES == "removed" &&
      function.service_config[0].environment_variables.IAM_STANDS_BEFORE == "true"
    ])
    error_message = "The latest revision serves, and knows that IAM stands before it."
  }
  assert {
    condition = alltrue(flatten([
      for function in google_cloudfunctions2_function.function : [
        for secret in function.service_config[0].secret_environment_variables : can(regex("^[1-9][0-9]*$", secret.version))
      ]
    ]))
    error_message = "Versions of secrets are pinned."
  }
  assert {
    condition = {
      for name, function in google_cloudfunctions2_function.function :
      name => {
        for setting, value in function.service_config[0].environment_variables :
        setting => value if startswith(setting, "LINKEDIN_") || startswith(setting, "TWITTER_")
      }
      } == {
      for name, function in local.topology.functions :
      name => {
        for setting, value in { LINKEDIN_CLIENT_ID = "li-app", LINKEDIN_API_VERSION = "202612", TWITTER_CLIENT_ID = "x-app" } :
        setting => value if contains(function.uses, "platforms")
      }
    }
    error_message = "Who speaks to platforms knows our app there, and which version of an API to ask for; nobody else does."
  }
  assert {
    condition = alltrue([
      for function in google_cloudfunctions2_function.function :
      length(setintersection(
        keys(function.service_config[0].environment_variables),
        ["WEBHOOK_SECRET", "WEBHOOK_SECRET_PREVIOUS", "TOKEN_KEYS", "LINKEDIN_CLIENT_SECRET", "TWITTER_CLIENT_SECRET", "ALERT_WEBHOOK_SECRET"],
      )) == 0
    ])
    error_message = "No secret is a plain setting."
  }
  assert {
    condition = alltrue([
      for name, object in google_storage_bucket_object.source :
      object.name == "${name}/${local.digests[name]}.zip" &&
      google_cloudfunctions2_function.function[name].build_config[0].source[0].storage_source[0].object == object.name
    ]) && length(distinct(values(local.digests))) == length(local.functions)
    error_message = "The archive's digest is in its name, and the function is built from that object."
  }
  assert {
    condition = alltrue([
      for name, archive in data.archive_file.source :
      archive.output_file_mode == "0644" &&
      toset([for source in archive.source : source.filename]) == setunion(["main.py", "requirements.txt"], fileset("..", "shared/**/*.py"))
    ])
    error_message = "An archive holds main.py, requirements.txt and shared, with fixed modes."
  }

  # access

  assert {
    condition = length(setintersection(["allUsers", "allAuthenticatedUsers"], concat(
      [for grant in google_cloud_run_service_iam_member.invokes : grant.member],
      [for grant in google_cloud_tasks_queue_iam_member.creates_tasks : grant.member],
      [for grant in google_cloud_tasks_queue_iam_member.deletes_tasks : grant.member],
      [for grant in google_cloud_tasks_queue_iam_member.orders_queues : grant.member],
      [for grant in google_storage_bucket_iam_member.keeps_files : grant.member],
      [for grant in google_storage_bucket_iam_member.product : grant.member],
      [for grant in google_project_iam_member.watches_queues : grant.member],
      [for grant in google_secret_manager_secret_iam_member.reads : grant.member],
      [for grant in google_storage_bucket_iam_member.reads_media : grant.member],
      [for grant in google_service_account_iam_member.acts_as_tasks : grant.member],
      [for grant in google_service_account_iam_member.signs_urls : grant.member],
      [for grant in google_project_iam_member.keeps_records : grant.member],
      [for grant in google_project_iam_member.builder : grant.member],
    ))) == 0
    error_message = "Nothing is granted to everybody."
  }
  assert {
    condition = toset([
      for grant in google_cloud_run_service_iam_member.invokes : "${grant.service} ${grant.member} ${grant.role}"
      ]) == toset(flatten([
        for name, function in local.topology.functions : [
          for role in function.callers : [
            for member in {
              tasks     = [google_service_account.tasks.member]
              scheduler = [google_service_account.scheduler.member]
              backend = [
                "serviceAccount:backend@acme-test.iam.gserviceaccount.com",
                "serviceAccount:importer@acme-test.iam.gserviceaccount.com",
              ]
              viewer   = ["user:viewer@example.com"]
              operator = ["user:operator@example.com"]
              admin    = ["serviceAccount:bot@acme-test.iam.gserviceaccount.com"]
            }[role] : "${replace(name, "_", "-")} ${member} roles/run.invoker"
          ]
        ]
    ]))
    error_message = "Functions are called by the callers that the topology names, and nobody else."
  }
  assert {
    condition = (
      google_cloud_run_service_iam_member.invokes["publish_post/tasks"].member == google_service_account.tasks.member &&
      google_cloud_run_service_iam_member.invokes["maintain/scheduler"].member == google_service_account.scheduler.member
    )
    error_message = "Cloud Tasks and Cloud Scheduler call as their own accounts."
  }
  assert {
    condition = alltrue([
      for grant in google_cloud_tasks_queue_iam_member.creates_tasks : grant.role == "roles/cloudtasks.enqueuer"
      ]) && alltrue([
      for name, _ in local.creates_tasks :
      google_service_account_iam_member.acts_as_tasks[name].role == "roles/iam.serviceAccountUser" &&
      google_service_account_iam_member.acts_as_tasks[name].service_account_id == google_service_account.tasks.name &&
      google_service_account_iam_member.acts_as_tasks[name].member == google_service_account.function[name].member
    ])
    error_message = "Who creates tasks may act as the account that they carry."
  }
  assert {
    condition = alltrue([
      for name, grant in google_project_iam_member.keeps_records :
      grant.role == "roles/datastore.user" && grant.member == google_service_account.function[name].member &&
      strcontains(grant.condition[0].expression, "projects/acme-jobs-test/databases/(default)")
    ])
    error_message = "Each function keeps records in our database alone."
  }
  assert {
    condition = toset(keys(google_secret_manager_secret_iam_member.reads)) == toset(flatten([
      for name, function in local.topology.functions : concat(
        ["${name}/webhook-secret"],
        contains(function.uses, "tokens") ? ["${name}/token-keys"] : [],
        contains(function.uses, "platforms") ? ["${name}/linkedin-client-secret"] : [],
        contains(function.uses, "alerts") ? ["${name}/alert-webhook-secret"] : [],
      )
    ]))
    error_message = "A function reads the secrets that it needs, and no other."
  }
  assert {
    condition = toset(keys(google_storage_bucket_iam_member.reads_media)) == toset([
      for name, function in local.topology.functions : name if contains(function.uses, "media")
      ]) && toset(keys(google_service_account_iam_member.signs_urls)) == toset([
      for name, function in local.topology.functions : name if contains(function.uses, "media") || contains(function.uses, "files")
    ])
    error_message = "Who publishes reads media; who gives out URLs signs them; nobody else does."
  }
  assert {
    condition = alltrue([
      for name, grant in google_storage_bucket_iam_member.reads_media :
      grant.role == "roles/storage.objectViewer" && grant.member == google_service_account.function[name].member
      ]) && alltrue([
      for name, grant in google_service_account_iam_member.signs_urls :
      grant.role == "roles/iam.serviceAccountTokenCreator" && grant.member == google_service_account.function[name].member &&
      grant.service_account_id == google_service_account.function[name].name
    ])
    error_message = "Media are read, not written, and each account signs as itself alone."
  }

  assert {
    condition = toset([for grant in google_storage_bucket_iam_member.product : "${grant.bucket} ${grant.member} ${grant.role}"]) == toset([
      for pair in setproduct([google_storage_bucket.media.name, google_storage_bucket.files[0].name], var.backend_callers) :
      "${pair[0]} serviceAccount:${pair[1]} roles/storage.objectUser"
    ])
    error_message = "The product reaches both of its buckets, and nobody else does."
  }

  # queues

  assert {
    condition = alltrue([
      for name, queue in google_cloud_tasks_queue.queue :
      queue.name == name &&
      queue.rate_limits[0].max_dispatches_per_second == local.topology.queues[name].maxDispatchesPerSecond &&
      queue.rate_limits[0].max_concurrent_dispatches == local.topology.queues[name].maxConcurrentDispatches &&
      queue.retry_config[0].max_attempts == local.topology.queues[name].maxAttempts &&
      queue.retry_config[0].min_backoff == "${local.topology.queues[name].minBackoffSeconds}s" &&
      queue.retry_config[0].max_backoff == "${local.topology.queues[name].maxBackoffSeconds}s" &&
      queue.retry_config[0].max_doublings == local.topology.queues[name].maxDoublings
    ])
    error_message = "Each queue has the rate and the retries of the topology."
  }
  assert {
    condition = alltrue([
      for platform in local.platforms :
      google_cloud_tasks_queue.queue["publish-${platform}"].retry_config[0].min_backoff == "5s" &&
      google_cloud_tasks_queue.queue["publish-${platform}"].retry_config[0].max_backoff == "60s" &&
      google_cloud_tasks_queue.queue["publish-${platform}"].retry_config[0].max_attempts == 12
    ])
    error_message = "Busy answers outlast a lease: publish queues wait 5 s to 60 s, 12 times."
  }
  assert {
    condition     = [for name, queue in google_cloud_tasks_queue.queue : name if queue.desired_state == "PAUSED"] == ["default-dlq"]
    error_message = "default-dlq is paused, and no other queue."
  }
  assert {
    condition     = alltrue([for queue in google_cloud_tasks_queue.queue : queue.deletion_policy == "PREVENT"])
    error_message = "No queue is deleted by mistake: its name would be lost for days."
  }

  # schedules

  assert {
    condition = alltrue([
      for name, job in google_cloud_scheduler_job.schedule :
      job.http_target[0].oidc_token[0].service_account_email == google_service_account.scheduler.email &&
      job.http_target[0].oidc_token[0].audience == local.urls[local.topology.schedules[name].function] &&
      job.http_target[0].uri == "${local.urls[local.topology.schedules[name].function]}${local.topology.schedules[name].path}"
    ])
    error_message = "Each job carries a token for the function that it calls."
  }
  assert {
    condition = alltrue([
      for name, job in google_cloud_scheduler_job.schedule :
      job.schedule == local.topology.schedules[name].cron && job.time_zone == local.topology.schedules[name].timeZone &&
      job.attempt_deadline == "${local.topology.schedules[name].attemptDeadlineSeconds}s" &&
      job.retry_config[0].retry_count == local.topology.schedules[name].retryCount && job.http_target[0].http_method == "POST"
    ])
    error_message = "Jobs run when the topology says, in its time zone, with its deadline and retries."
  }
  assert {
    condition     = local.urls["publish_post"] == "https://europe-west1-acme-jobs-test.cloudfunctions.net/publish-post"
    error_message = "URLs follow from region, project and name."
  }

  # records

  assert {
    condition = (
      google_firestore_database.records.type == "FIRESTORE_NATIVE" &&
      google_firestore_database.records.point_in_time_recovery_enablement == "POINT_IN_TIME_RECOVERY_ENABLED" &&
      google_firestore_database.records.delete_protection_state == "DELETE_PROTECTION_ENABLED" &&
      google_firestore_database.records.deletion_policy == "PREVENT" &&
      google_firestore_database.records.location_id == "europe-west1"
    )
    error_message = "The database can be restored and not be deleted."
  }
  assert {
    condition = { for key, index in google_firestore_index.composite : key => join("/", [
      for field in index.fields : "${field.order == "DESCENDING" ? "-" : ""}${field.field_path}"
      ]) if index.collection == "scheduledPosts" } == {
      "scheduledPosts/companyId/scheduledAt"        = "companyId/scheduledAt"
      "scheduledPosts/companyId/status/scheduledAt" = "companyId/status/scheduledAt"
    }
    error_message = "Posts are listed by company, and by company and status, in the order of their time."
  }
  assert {
    condition = (
      google_firestore_field.ttl["idempotencyMarkers"].field == "expireAt" &&
      length(google_firestore_field.ttl["idempotencyMarkers"].ttl_config) == 1 &&
      alltrue([
        for field in concat(values(google_firestore_field.ttl), values(google_firestore_field.unindexed)) :
        length(field.index_config) == 1 && length(field.index_config[0].indexes) == 0
      ])
    )
    error_message = "Markers expire; the fields that are listed have no index."
  }
  assert {
    condition = alltrue([
      for bucket in concat([google_storage_bucket.sources, google_storage_bucket.media], google_storage_bucket.files) :
      bucket.uniform_bucket_level_access && bucket.public_access_prevention == "enforced" && !bucket.force_destroy
      ]) && alltrue([
      for bucket in [google_storage_bucket.sources, google_storage_bucket.media] :
      alltrue(flatten([
        for rule in bucket.lifecycle_rule : [
          for condition in rule.condition : condition.with_state == "ARCHIVED" if one(rule.action).type == "Delete"
        ]
      ]))
    ])
    error_message = "Buckets are private, and nothing live is removed by its age."
  }

  # alerts

  assert {
    condition = alltrue([
      for policy in concat(
        values(google_monitoring_alert_policy.line),
        values(google_monitoring_alert_policy.figure),
        values(google_monitoring_alert_policy.missed),
        google_monitoring_alert_policy.seldom,
      ) :
      join(" ", policy.notification_channels) == google_monitoring_notification_channel.email["oncall@example.com"].id &&
      strcontains(policy.documentation[0].content, "**What to do.**")
    ])
    error_message = "Each alert reaches somebody and says what to do."
  }
  assert {
    condition = toset(concat(
      keys(google_monitoring_alert_policy.missed), local.seldom_schedules
    )) == toset(keys(local.topology.schedules)) && length(google_monitoring_alert_policy.seldom) == 1
    error_message = "A missed slot of each schedule is noticed, or its failure where it runs once a day."
  }
  assert {
    condition     = alltrue([for policy in google_monitoring_alert_policy.line : policy.alert_strategy[0].notification_rate_limit[0].period == "300s"])
    error_message = "Alerts on log lines have a limit on how often they notify: Monitoring asks for one."
  }
  assert {
    condition = alltrue([
      for metric in google_logging_metric.figure :
      (metric.metric_descriptor[0].value_type == "DISTRIBUTION") == (metric.value_extractor != null) && metric.metric_descriptor[0].metric_kind == "DELTA"
    ])
    error_message = "Metrics of a value are distributions, the others count."
  }

  # what a person needs next

  assert {
    condition     = strcontains(output.first_post, "--include-email") && strcontains(output.first_post, local.urls["schedule_post"])
    error_message = "The first post is scheduled at the right address, with a token that names its caller."
  }
}
