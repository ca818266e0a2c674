# topology.json is the one list of functions, queues and schedules. Tests and the local stack read
# the same file: what is tested is what is deployed.
#
# A function `uses` what its code touches; access follows from it:
#   createTasks  puts tasks on the queues that aim at a function, in the name of the tasks account
#   deleteTasks  takes them off again
#   tokens       opens and seals the accounts' tokens
#   watchQueues  lists queues and their tasks
#   orderQueues  pauses, resumes and purges queues
#   platforms    speaks to the platforms: their client secrets
#   media        reads the media bucket, and signs its URLs
#   alerts       tells the product's own receiver of dead letters and unknown outcomes
#   files        reads and writes files of imports and exports, and signs their URLs

locals {
  topology  = jsondecode(file("${path.module}/topology.json"))
  functions = local.topology.functions
  queues    = local.topology.queues
  schedules = local.topology.schedules

  # Kebab-case, so that the Cloud Run service below a function has the function's own name.
  names = { for function, _ in local.functions : function => replace(function, "_", "-") }

  # A function's address, and the audience of the tokens it is called with. By rule and not from the
  # function's own output: functions call each other, and that would be a cycle.
  urls = {
    for function, name in local.names :
    function => "https://${var.region}-${var.project}.cloudfunctions.net/${name}"
  }

  platforms = toset([for queue in local.queues : queue.platform if can(queue.platform)])

  # function => true, by what it uses
  creates_tasks  = { for name, function in local.functions : name => true if contains(function.uses, "createTasks") }
  deletes_tasks  = { for name, function in local.functions : name => true if contains(function.uses, "deleteTasks") }
  watches_queues = { for name, function in local.functions : name => true if contains(function.uses, "watchQueues") }
  orders_queues  = { for name, function in local.functions : name => true if contains(function.uses, "orderQueues") }
  opens_tokens   = { for name, function in local.functions : name => true if contains(function.uses, "tokens") }
  asks_platforms = { for name, function in local.functions : name => true if contains(function.uses, "platforms") }
  reads_media    = { for name, function in local.functions : name => true if contains(function.uses, "media") }
  sends_alerts   = { for name, function in local.functions : name => true if contains(function.uses, "alerts") }
  keeps_files    = { for name, function in local.functions : name => true if contains(function.uses, "files") }
}
