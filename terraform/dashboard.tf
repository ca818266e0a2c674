locals {
  tasks_series = "resource.type=\"cloud_tasks_queue\" AND metric.type=\"cloudtasks.googleapis.com/queue"

  # In rows of three, from the top left.
  charts = [
    { title = "Results, by status", filter = local.series.publish_settled, aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", group_by = ["metric.label.status"], plot = "STACKED_BAR" },
    { title = "Published, by platform", filter = "${local.series.publish_settled} AND metric.labels.status=\"success\"", aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", group_by = ["metric.label.platform"], plot = "STACKED_BAR" },
    { title = "Not published: dead letters, by code", filter = local.series.dead_letters, aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", group_by = ["metric.label.code"], plot = "STACKED_BAR" },
    { title = "Lateness, 95th percentile (ms)", filter = local.series.publish_lateness, aligner = "ALIGN_DELTA", reducer = "REDUCE_PERCENTILE_95", group_by = ["metric.label.platform"], plot = "LINE" },
    { title = "Duration, median (ms)", filter = local.series.publish_duration, aligner = "ALIGN_DELTA", reducer = "REDUCE_PERCENTILE_50", group_by = ["metric.label.platform"], plot = "LINE" },
    { title = "Duration, 95th percentile (ms)", filter = local.series.publish_duration, aligner = "ALIGN_DELTA", reducer = "REDUCE_PERCENTILE_95", group_by = ["metric.label.platform"], plot = "LINE" },
    { title = "Attempts until the end, 95th percentile", filter = local.series.publish_attempts, aligner = "ALIGN_DELTA", reducer = "REDUCE_PERCENTILE_95", group_by = ["metric.label.platform"], plot = "LINE" },
    { title = "Unknown outcomes", filter = local.series.unknown_outcomes, aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", group_by = ["metric.label.platform"], plot = "STACKED_BAR" },
    { title = "Answers without a record", filter = local.series.publish_unrecorded, aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", group_by = ["metric.label.platform"], plot = "STACKED_BAR" },
    { title = "Queue depth", filter = "${local.tasks_series}/depth\"", aligner = "ALIGN_MAX", reducer = "REDUCE_MAX", group_by = ["resource.label.queue_id"], plot = "LINE" },
    { title = "Answers to Cloud Tasks, by code", filter = "${local.tasks_series}/task_attempt_count\"", aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", group_by = ["metric.label.response_code"], plot = "STACKED_BAR" },
    { title = "Tasks not created", filter = local.series.tasks_not_created, aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", group_by = ["metric.label.queue"], plot = "STACKED_BAR" },
    { title = "Woken by the sweep", filter = local.series.swept, aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", group_by = ["metric.label.platform"], plot = "STACKED_BAR" },
    { title = "Scheduled runs done", filter = local.series.slots_done, aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", group_by = ["metric.label.event"], plot = "LINE" },
    { title = "Failed requests, by status", filter = local.series.requests_failed, aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", group_by = ["metric.label.status"], plot = "STACKED_BAR" },
    { title = "Accounts expired", filter = local.series.accounts_expired, aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM", group_by = ["metric.label.platform"], plot = "STACKED_BAR" },
  ]
}

resource "google_monitoring_dashboard" "overview" {
  project = local.project

  dashboard_json = jsonencode({
    displayName = "TendSocial jobs"
    mosaicLayout = {
      columns = 48
      tiles = [
        for index, chart in local.charts : {
          xPos   = index % 3 * 16
          yPos   = floor(index / 3) * 14
          width  = 16
          height = 14
          widget = {
            title = chart.title
            xyChart = {
              dataSets = [{
                plotType   = chart.plot
                targetAxis = "Y1"
                timeSeriesQuery = {
                  timeSeriesFilter = {
                    filter = chart.filter
                    aggregation = {
                      alignmentPeriod    = "300s"
                      perSeriesAligner   = chart.aligner
                      crossSeriesReducer = chart.reducer
                      groupByFields      = chart.group_by
                    }
                  }
                }
              }]
            }
          }
        }
      ]
    }
  })

  depends_on = [google_logging_metric.figure]
}
