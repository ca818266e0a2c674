resource "google_cloud_tasks_queue" "queue" {
  for_each = local.queues

  project  = local.project
  location = var.region
  name     = each.key

  # A paused queue still takes tasks. An apply may undo what was paused by hand; `paused_queues` stays.
  desired_state = try(each.value.paused, false) || contains(var.paused_queues, each.key) ? "PAUSED" : "RUNNING"

  # The name of a deleted queue cannot be used again for days.
  deletion_policy = "PREVENT"

  rate_limits {
    max_dispatches_per_second = each.value.maxDispatchesPerSecond
    max_concurrent_dispatches = each.value.maxConcurrentDispatches
  }

  # For crashes and outages alone: attempts are ours to count. Without max_retry_duration the number
  # of attempts decides; with one, the queue stops only when both limits are reached.
  retry_config {
    max_attempts  = each.value.maxAttempts
    min_backoff   = "${each.value.minBackoffSeconds}s"
    max_backoff   = "${each.value.maxBackoffSeconds}s"
    max_doublings = each.value.maxDoublings
  }

  stackdriver_logging_config {
    sampling_ratio = var.queue_log_sampling
  }
}

locals {
  # Queues that aim at a function; the others wait for theirs.
  aimed_queues = { for name, queue in local.queues : name => queue.target if can(queue.target) }

  enqueues = {
    for pair in setproduct(keys(local.aimed_queues), keys(local.creates_tasks)) :
    "${pair[0]}/${pair[1]}" => { queue = pair[0], function = pair[1] }
  }
  queue_orders = {
    for pair in setproduct(keys(local.queues), keys(local.orders_queues)) :
    "${pair[0]}/${pair[1]}" => { queue = pair[0], function = pair[1] }
  }
  dequeues = {
    for pair in setproduct(keys(local.aimed_queues), keys(local.deletes_tasks)) :
    "${pair[0]}/${pair[1]}" => { queue = pair[0], function = pair[1] }
  }
}

resource "google_cloud_tasks_queue_iam_member" "creates_tasks" {
  for_each = local.enqueues

  project  = local.project
  location = var.region
  name     = google_cloud_tasks_queue.queue[each.value.queue].name
  role     = "roles/cloudtasks.enqueuer"
  member   = google_service_account.function[each.value.function].member
}

resource "google_cloud_tasks_queue_iam_member" "deletes_tasks" {
  for_each = local.dequeues

  project  = local.project
  location = var.region
  name     = google_cloud_tasks_queue.queue[each.value.queue].name
  role     = "roles/cloudtasks.taskDeleter"
  member   = google_service_account.function[each.value.function].member
}

resource "google_cloud_tasks_queue_iam_member" "orders_queues" {
  for_each = local.queue_orders

  project  = local.project
  location = var.region
  name     = google_cloud_tasks_queue.queue[each.value.queue].name
  role     = "roles/cloudtasks.queueAdmin"
  member   = google_service_account.function[each.value.function].member
}

# Which queues there are can only be asked of the project.
resource "google_project_iam_member" "watches_queues" {
  for_each = local.watches_queues

  project = local.project
  role    = "roles/cloudtasks.viewer"
  member  = google_service_account.function[each.key].member
}
