# Figures are made from log lines: `event` names are an interface, `shared/observability.py` lists
# them. A metric counts the lines of its `events`; with a `value` it is the distribution of that field.

locals {
  services = join(" OR ", [for name in values(local.names) : "\"${name}\""])
  of_ours  = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=(${local.services})"

  milliseconds = [100, 250, 500, 1000, 2000, 5000, 10000, 20000, 45000, 60000, 120000, 300000, 900000, 3600000]

  metrics = {
    publish_settled = {
      description = "Attempts that came to a result, by platform and the delivery's status: success, retry, failed, unknown, ..."
      events      = ["publish.settled"]
      labels      = { platform = "platform", status = "status" }
    }
    publish_duration = {
      description = "How long attempts took"
      events      = ["publish.settled"]
      value       = "durationMs"
      unit        = "ms"
      bounds      = local.milliseconds
      labels      = { platform = "platform" }
    }
    publish_lateness = {
      description = "How long after its time an attempt began"
      events      = ["publish.begun"]
      value       = "latenessMs"
      unit        = "ms"
      bounds      = local.milliseconds
      labels      = { platform = "platform" }
    }
    publish_attempts = {
      description = "Which attempt it was that published, or failed for good"
      events      = ["publish.settled"]
      statuses    = ["success", "failed"]
      value       = "attempt"
      unit        = "1"
      bounds      = [2, 3, 4, 5, 10, 20]
      labels      = { platform = "platform", status = "status" }
    }
    publish_unrecorded = {
      description = "Answers of a platform that no record could take"
      events      = ["publish.unrecorded"]
      labels      = { platform = "platform" }
    }
    dead_letters = {
      description = "Deliveries that ended without success, and task bodies that nobody can read"
      events      = ["delivery.dead_lettered", "task.malformed"]
      labels      = { platform = "platform", status = "status", code = "code" }
    }
    unknown_outcomes = {
      description = "Deliveries of which nobody can say whether the platform has them"
      events      = ["delivery.unknown"]
      labels      = { platform = "platform" }
    }
    accounts_expired = {
      description = "Accounts whose token a platform refuses for good"
      events      = ["account.expired"]
      labels      = { platform = "platform" }
    }
    tasks_not_created = {
      description = "Tasks that Cloud Tasks did not take; the sweep makes others"
      events      = ["task.create_failed"]
      labels      = { queue = "queue" }
    }
    requests_failed = {
      description = "Answers of 500 and above; status 503 is \"come back later\""
      events      = ["request.failed"]
      labels      = { path = "path", status = "httpStatus" }
    }
    swept = {
      description = "Deliveries that only the sweep woke, or gave up on"
      events      = ["sweep.woke", "delivery.cannot_start"]
      labels      = { platform = "platform" }
    }
    slots_done = {
      description = "Scheduled runs that came to their end"
      events      = [for schedule in local.schedules : schedule.doneEvent]
      labels      = { event = "event" }
    }
  }
}

resource "google_logging_metric" "figure" {
  for_each = local.metrics

  project     = local.project
  name        = each.key
  description = each.value.description
  filter = join(" AND ", compact([
    local.of_ours,
    "jsonPayload.event=(${join(" OR ", [for event in each.value.events : "\"${event}\""])})",
    can(each.value.statuses) ? "jsonPayload.status=(${join(" OR ", [for status in each.value.statuses : "\"${status}\""])})" : "",
    can(each.value.value) ? "jsonPayload.${each.value.value}>=0" : "",
  ]))

  value_extractor  = can(each.value.value) ? "EXTRACT(jsonPayload.${each.value.value})" : null
  label_extractors = { for label, field in each.value.labels : label => "EXTRACT(jsonPayload.${field})" }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = can(each.value.value) ? "DISTRIBUTION" : "INT64"
    unit        = try(each.value.unit, "1")

    dynamic "labels" {
      for_each = each.value.labels

      content {
        key        = labels.key
        value_type = "STRING"
      }
    }
  }

  dynamic "bucket_options" {
    for_each = can(each.value.bounds) ? [each.value.bounds] : []

    content {
      explicit_buckets {
        bounds = bucket_options.value
      }
    }
  }
}

# Monitoring does not know a new metric at once, and refuses a policy that names it until it does.
resource "time_sleep" "metrics_are_known" {
  create_duration = "120s"
  triggers        = { names = join(",", sort(keys(local.metrics))) }
  depends_on      = [google_logging_metric.figure]
}

locals {
  # metric => the filter that finds it
  series = {
    for name, _ in local.metrics :
    name => "resource.type=\"cloud_run_revision\" AND metric.type=\"logging.googleapis.com/user/${name}\""
  }
}
