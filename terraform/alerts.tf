resource "google_monitoring_notification_channel" "email" {
  for_each = var.alert_emails

  project      = local.project
  display_name = "TendSocial jobs: ${each.value}"
  type         = "email"
  labels       = { email_address = each.value }
}

locals {
  channels = concat(
    sort(var.notification_channels),
    [for channel in google_monitoring_notification_channel.email : channel.id],
  )

  # The ids in each message: $${log.extracted_label.X} is filled in by Monitoring.
  about_delivery = {
    company  = "companyId"
    post     = "postId"
    platform = "platform"
    account  = "accountId"
    delivery = "deliveryId"
    status   = "status"
    code     = "code"
  }
  which_delivery = <<-EOT
    Post `$${log.extracted_label.post}` of company `$${log.extracted_label.company}`, to `$${log.extracted_label.platform}` account
    `$${log.extracted_label.account}`: `$${log.extracted_label.status}`, code `$${log.extracted_label.code}`.
    Its record is `publishLogs/$${log.extracted_label.delivery}`.
  EOT

  # One line is enough: these need no threshold.
  alerts_on_lines = {
    dead_letter = {
      title    = "A delivery ended without success"
      severity = "ERROR"
      events   = ["delivery.dead_lettered", "task.malformed"]
      labels   = local.about_delivery
      text     = <<-EOT
        ${local.which_delivery}
        **What it means.** The platform holds no such post (or only its first parts: `partial`), and nothing will be tried again.
        Its dead letter, `deadLetters/<delivery>-<generation>`, holds the attempts and the platform's answer. Without a delivery
        it was a task that nobody can read: the letter holds its body.

        **What to do.** Read `code` and the last attempt's message. `auth_expired`, `account_disconnected`: have the account
        reconnected. Refused content: correct it. `missed`, `cannot_start`: see whether the queue is paused and whether the
        functions answer. Then send it again with `POST /retry` of schedule-post, which takes corrected content and, for
        `missed`, needs a new `latestAt`. Doing nothing is safe: nothing is sent by itself.
      EOT
    }
    unknown_outcome = {
      title    = "Nobody can say whether a post is out"
      severity = "CRITICAL"
      events   = ["delivery.unknown"]
      labels   = local.about_delivery
      text     = <<-EOT
        ${local.which_delivery}
        **What it means.** The call that creates the post was sent, its answer was lost, and half an hour of looking has not
        found the post. It may be there. It is not sent again, because that could publish it twice.

        **What to do.** Look at the account on the platform. If the post is not there, order a second send: `POST /retry` of
        schedule-post with `acceptDuplicateRisk: true` and a `reason`, which is kept in `auditLog`. If it is there, leave the
        delivery as it is.
      EOT
    }
    unrecorded_answer = {
      title    = "A platform's answer could not be put on record"
      severity = "CRITICAL"
      events   = ["publish.unrecorded"]
      labels   = merge(local.about_delivery, { remote = "remoteId" })
      text     = <<-EOT
        ${local.which_delivery}
        **What it means.** The platform answered, with the post's id `$${log.extracted_label.remote}` if there is one, while Firestore
        did not take the write. This line is the only trace of that id.

        **What to do.** Keep the id. See whether Firestore was down (status.cloud.google.com, request.failed lines). The delivery
        settles by itself where the platform offers proof; if it ends `unknown`, the id says that the post is out: do not
        order a second send.
      EOT
    }
    account_expired = {
      title    = "A platform refuses an account's token"
      severity = "WARNING"
      events   = ["account.expired"]
      labels   = { platform = "platform", account = "accountId" }
      text     = <<-EOT
        Account `$${log.extracted_label.account}` on `$${log.extracted_label.platform}`.

        **What it means.** Its token is refused and cannot be refreshed. Deliveries to it fail with `auth_expired` as they come
        due, each with a dead letter.

        **What to do.** Ask the account's owner to reconnect it (`POST /accounts/connect` of schedule-post). Deliveries that are
        still inside their `latestAt` are then sent again. Many accounts of one platform at once: look at our app there, its
        client secret may have ended.
      EOT
    }
    missed_slot = {
      title    = "Nobody ran a slot of a schedule"
      severity = "ERROR"
      events   = ["schedule.slot_missed"]
      labels   = { job = "job", slot = "slot" }
      text     = <<-EOT
        Job `$${log.extracted_label.job}`, slot `$${log.extracted_label.slot}`.

        **What it means.** Cloud Scheduler was down, the job was paused, or its calls did not get through. The work of this slot has
        not been done; later slots are not affected.

        **What to do.** `gcloud scheduler jobs describe` the job: its state and the status of its last try. If the work cannot wait for
        the next slot, `gcloud scheduler jobs run` it; that is safe at any time.
      EOT
    }
    our_own_fault = {
      title    = "A function failed with an error of ours"
      severity = "ERROR"
      events   = ["request.failed"]
      where    = "severity=ERROR"
      labels   = { path = "path" }
      text     = <<-EOT
        At `$${log.extracted_label.path}`; Error Reporting has the stack trace.

        **What it means.** Code of ours, or a setting, is wrong. A delivery that it struck stays as it is until its lease runs
        out and is then taken up again, four attempts in all.

        **What to do.** Right after a deployment: roll back. `SettingsError` names the setting that is wrong: correct it in the
        variables and apply.
      EOT
    }
  }

  # Figures, and what makes an alert of them.
  alerts_on_figures = {
    lateness = {
      title     = "Posts go out late"
      severity  = "WARNING"
      filter    = local.series.publish_lateness
      window    = "300s"
      aligner   = "ALIGN_PERCENTILE_95"
      reducer   = "REDUCE_MAX"
      group_by  = ["metric.label.platform"]
      threshold = var.alert_thresholds.lateness_seconds * 1000
      text      = <<-EOT
        **What it means.** One attempt in twenty began more than ${var.alert_thresholds.lateness_seconds} s after its time.

        **What to do.** One platform: its queue's rate is used up (many posts for one minute are spread out), it was paused
        and resumed, or the platform throttles us: nothing to do but wait, or raise the queue's rate in topology.json. All platforms:
        look at the functions' instance count, 503 answers and Firestore's latency. Posts are not lost; past `latestAt`
        they become `missed`.
      EOT
    }
    queue_depth = {
      title     = "A queue holds more tasks than planned"
      severity  = "WARNING"
      filter    = "resource.type=\"cloud_tasks_queue\" AND metric.type=\"cloudtasks.googleapis.com/queue/depth\" AND resource.labels.queue_id!=\"default-dlq\""
      window    = "600s"
      aligner   = "ALIGN_MIN"
      reducer   = "REDUCE_MAX"
      group_by  = ["resource.label.queue_id"]
      threshold = var.alert_thresholds.queue_depth
      text      = <<-EOT
        **What it means.** For ten minutes the queue held more than ${var.alert_thresholds.queue_depth} tasks, those that are due in
        the future among them.

        **What to do.** If lateness is normal, plans have grown: raise alert_thresholds.queue_depth. If not, see whether the queue is
        paused (`gcloud tasks queues describe`) and how the function answers (chart "Answers to Cloud Tasks").
      EOT
    }
    swept = {
      title     = "Deliveries are woken by the sweep alone"
      severity  = "ERROR"
      filter    = local.series.swept
      window    = "900s"
      aligner   = "ALIGN_SUM"
      reducer   = "REDUCE_SUM"
      group_by  = []
      threshold = var.alert_thresholds.swept
      text      = <<-EOT
        **What it means.** Their tasks did not come: not created, purged, or not dispatched. They go out minutes late, and after five
        such rounds without a start they fail with `cannot_start`.

        **What to do.** Right after a purge this is expected. Else look for task.create_failed lines (a missing role, a quota), at the
        queues' state, and for 401 or 403 answers of publish-post to Cloud Tasks.
      EOT
    }
  }
}

resource "google_monitoring_alert_policy" "line" {
  for_each = local.alerts_on_lines

  project               = local.project
  display_name          = each.value.title
  severity              = each.value.severity
  combiner              = "OR"
  notification_channels = local.channels

  conditions {
    display_name = each.value.title

    condition_matched_log {
      filter = join(" AND ", compact([
        local.of_ours,
        "jsonPayload.event=(${join(" OR ", [for event in each.value.events : "\"${event}\""])})",
        try(each.value.where, ""),
      ]))
      label_extractors = { for label, field in each.value.labels : label => "EXTRACT(jsonPayload.${field})" }
    }
  }

  alert_strategy {
    auto_close = "86400s"

    notification_rate_limit {
      period = "300s" # a bad hour is one message every five minutes, not one for each post
    }
  }

  documentation {
    subject = each.value.title
    content = each.value.text
  }
}

resource "google_monitoring_alert_policy" "figure" {
  for_each = local.alerts_on_figures

  project               = local.project
  display_name          = each.value.title
  severity              = each.value.severity
  combiner              = "OR"
  notification_channels = local.channels

  conditions {
    display_name = each.value.title

    condition_threshold {
      filter          = each.value.filter
      comparison      = "COMPARISON_GT"
      threshold_value = each.value.threshold
      duration        = "0s"

      aggregations {
        alignment_period     = each.value.window
        per_series_aligner   = each.value.aligner
        cross_series_reducer = each.value.reducer
        group_by_fields      = each.value.group_by
      }
    }
  }

  alert_strategy {
    auto_close = "86400s"
  }

  documentation {
    subject = each.value.title
    content = each.value.text
  }

  depends_on = [time_sleep.metrics_are_known]
}

locals {
  # An alert looks back for a day at most: what runs once a day cannot be missed, only seen to fail.
  frequent_schedules = { for name, schedule in local.schedules : name => schedule if can(schedule.missedAfterSeconds) }
  seldom_schedules   = [for name, schedule in local.schedules : name if !can(schedule.missedAfterSeconds)]
}

resource "google_monitoring_alert_policy" "seldom" {
  count = length(local.seldom_schedules) > 0 ? 1 : 0

  project               = local.project
  display_name          = "A daily job failed"
  severity              = "ERROR"
  combiner              = "OR"
  notification_channels = local.channels

  conditions {
    display_name = "Cloud Scheduler's call failed"

    condition_matched_log {
      filter = join(" AND ", [
        "resource.type=\"cloud_scheduler_job\"",
        "resource.labels.job_id=(${join(" OR ", [for name in local.seldom_schedules : "\"${name}\""])})",
        "severity>=ERROR",
      ])
      label_extractors = { job = "EXTRACT(resource.labels.job_id)", status = "EXTRACT(jsonPayload.status)" }
    }
  }

  alert_strategy {
    auto_close = "86400s"

    notification_rate_limit {
      period = "3600s"
    }
  }

  documentation {
    subject = "A daily job failed"
    content = <<-EOT
      Job `$${log.extracted_label.job}`, status `$${log.extracted_label.status}`.

      **What it means.** A call failed; Cloud Scheduler tries it a few times more. What is removed or summed up once a day waits for the
      next run, which takes it all up: nothing is lost.

      **What to do.** Nothing if a later try went well. Else see the function's lines, then
      `gcloud scheduler jobs run $${log.extracted_label.job} --location=${var.region}`; it is safe at any time.
    EOT
  }
}

# No news is bad news: a schedule whose runs do not come to their end, or do not come at all.
resource "google_monitoring_alert_policy" "missed" {
  for_each = local.frequent_schedules

  project               = local.project
  display_name          = "No ${each.key} for ${each.value.missedAfterSeconds / 60} minutes"
  severity              = "CRITICAL"
  combiner              = "OR"
  notification_channels = local.channels

  conditions {
    display_name = "No line ${each.value.doneEvent}"

    condition_absent {
      filter   = "${local.series.slots_done} AND metric.labels.event=\"${each.value.doneEvent}\""
      duration = "${each.value.missedAfterSeconds}s"

      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_SUM"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  # Where Logging writes zeros for a while, the series is not absent.
  conditions {
    display_name = "Not one line ${each.value.doneEvent}"

    condition_threshold {
      filter                  = "${local.series.slots_done} AND metric.labels.event=\"${each.value.doneEvent}\""
      comparison              = "COMPARISON_LT"
      threshold_value         = 1
      duration                = "60s"
      evaluation_missing_data = "EVALUATION_MISSING_DATA_ACTIVE"

      aggregations {
        alignment_period     = "${each.value.missedAfterSeconds}s"
        per_series_aligner   = "ALIGN_SUM"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  alert_strategy {
    auto_close = "86400s"
  }

  documentation {
    subject = "No ${each.key} for ${each.value.missedAfterSeconds / 60} minutes"
    content = <<-EOT
      **What it means.** ${local.names[each.value.function]} has not finished ${each.value.path} for ${each.value.missedAfterSeconds / 60}
      minutes. Posts still go out by their tasks; what needs this schedule stands still: overdue deliveries, leases that ran out,
      posts beyond the queue's horizon.

      **What to do.** `gcloud scheduler jobs describe ${each.key} --location=${var.region}`: paused, or which status did it end with? 401 or 403: the
      scheduler account has lost its role or the audience is wrong. 500: see ${local.names[each.value.function]}'s lines. Then
      `gcloud scheduler jobs run ${each.key} --location=${var.region}`; it is safe at any time.
    EOT
  }

  depends_on = [time_sleep.metrics_are_known]
}
