variable "project" {
  description = "Id of the Google Cloud project. It must exist, with billing."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project is an id of 6 to 30 lower-case letters, digits and hyphens, such as acme-jobs-prod; not its name or number."
  }
}

variable "region" {
  description = "Where functions, queues, schedules and buckets are."
  type        = string
  default     = "europe-west1"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]{1,2}$", var.region))
    error_message = "region is a single region, such as europe-west1; not a zone (europe-west1-b) or a multi-region (eu)."
  }
}

variable "database" {
  description = "Firestore database that keeps the records."
  type        = string
  default     = "(default)"
  nullable    = false

  validation {
    condition     = var.database == "(default)" || can(regex("^[a-z][a-z0-9-]{2,61}[a-z0-9]$", var.database))
    error_message = "database is (default), or 4 to 63 lower-case letters, digits and hyphens."
  }
}

variable "database_location" {
  description = "Firestore location, such as eur3; empty: the region. It can never be changed."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = contains(["", "eur3", "nam5", "nam7"], var.database_location) || can(regex("^[a-z]+-[a-z]+[0-9]{1,2}$", var.database_location))
    error_message = "database_location is empty, a region such as europe-west1, or one of eur3, nam5, nam7."
  }
}

variable "backend_callers" {
  description = "E-mails of the service accounts with which the product's backend calls: schedule, edit, cancel, retry."
  type        = set(string)
  nullable    = false

  validation {
    condition     = length(var.backend_callers) > 0
    error_message = "backend_callers names at least one service account: without it nobody can schedule a post."
  }

  validation {
    condition     = alltrue([for email in var.backend_callers : can(regex("^[a-z0-9-]+@[a-z0-9.-]+\\.gserviceaccount\\.com$", email))])
    error_message = "backend_callers are e-mails of service accounts, such as backend@acme-prod.iam.gserviceaccount.com; not people, groups, allUsers or a prefix serviceAccount:."
  }
}

variable "alert_emails" {
  description = "E-mail addresses that alerts go to."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for email in var.alert_emails : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", email))])
    error_message = "alert_emails are e-mail addresses, such as oncall@example.com."
  }

  validation {
    condition     = length(var.alert_emails) + length(var.notification_channels) > 0
    error_message = "Alerts need somebody to reach: give alert_emails or notification_channels."
  }
}

variable "notification_channels" {
  description = "Channels that exist already (chat, pager), as projects/PROJECT/notificationChannels/ID."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for channel in var.notification_channels : can(regex("^projects/[^/]+/notificationChannels/[0-9]+$", channel))])
    error_message = "notification_channels are full names, projects/PROJECT/notificationChannels/ID: gcloud beta monitoring channels list --format='value(name)'."
  }
}

variable "webhook_secret" {
  description = "Secret that callers send as X-Webhook-Secret, of 32 characters or more. While it is rotated, previous_version is valid too."
  type = object({
    secret           = optional(string, "webhook-secret")
    version          = optional(string, "1")
    previous_version = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,255}$", var.webhook_secret.secret))
    error_message = "webhook_secret.secret is the secret's own id, such as webhook-secret; not its full name or its value."
  }

  validation {
    condition     = can(regex("^[1-9][0-9]*$", var.webhook_secret.version)) && can(regex("^[1-9][0-9]*$", coalesce(var.webhook_secret.previous_version, "1")))
    error_message = "webhook_secret.version and previous_version are numbers, such as 2: with latest, instances would differ by when they started."
  }
}

variable "console" {
  description = "E-mails of those who may use the console: viewers look, operators act on single posts, admins on more. People or service accounts, each in one list."
  type = object({
    viewers   = optional(set(string), [])
    operators = optional(set(string), [])
    admins    = optional(set(string), [])
  })
  default  = {}
  nullable = false

  validation {
    condition = alltrue([
      for email in setunion(var.console.viewers, var.console.operators, var.console.admins) : can(regex("^[^@:,\\s]+@[^@:,\\s]+\\.[^@:,\\s]+$", email))
    ])
    error_message = "console holds e-mail addresses, such as ops@example.com; no groups, and no prefix such as user:."
  }

  validation {
    condition = length(setunion(var.console.viewers, var.console.operators, var.console.admins)) == (
      length(var.console.viewers) + length(var.console.operators) + length(var.console.admins)
    )
    error_message = "console names each address once: an admin may do what operators and viewers may."
  }
}

variable "alert_webhook" {
  description = "The product's own receiver of dead letters and unknown outcomes, and the secret that signs what is sent to it; without a url there is none."
  type = object({
    url     = optional(string, "")
    secret  = optional(string, "alert-webhook-secret")
    version = optional(string, "1")
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.alert_webhook.url == "" || startswith(var.alert_webhook.url, "https://")
    error_message = "alert_webhook.url is an https address."
  }

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,255}$", var.alert_webhook.secret)) && can(regex("^[1-9][0-9]*$", var.alert_webhook.version))
    error_message = "alert_webhook names a secret by its own id and a version by its number; never the value."
  }
}

variable "token_keys" {
  description = "Secret with the keys that seal the accounts' tokens: id:base64 of 32 bytes each, separated by commas, the sealing key first."
  type = object({
    secret  = optional(string, "token-keys")
    version = optional(string, "1")
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,255}$", var.token_keys.secret))
    error_message = "token_keys.secret is the secret's own id, such as token-keys; not its full name or its value."
  }

  validation {
    condition     = can(regex("^[1-9][0-9]*$", var.token_keys.version))
    error_message = "token_keys.version is a number, such as 2: with latest, instances would differ by when they started."
  }
}

variable "platforms" {
  description = "Our app at each platform, by the platform's name: needed to refresh tokens. A public client has no secret. LinkedIn serves each version of its API for a year: api_version is YYYYMM, null the code's own."
  type = map(object({
    client_id     = optional(string)
    client_secret = optional(object({ secret = string, version = string }))
    api_version   = optional(string)
  }))
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for name in keys(var.platforms) : contains(local.platforms, name)])
    error_message = "platforms are named as in topology.json, in lower case: ${join(", ", local.platforms)}."
  }

  validation {
    condition     = alltrue([for app in var.platforms : app.client_id != ""])
    error_message = "platforms: client_id must not be empty."
  }

  validation {
    condition     = alltrue([for name, app in var.platforms : app.api_version == null ? true : name == "linkedin" && can(regex("^20[0-9]{4}$", app.api_version))])
    error_message = "platforms: api_version is LinkedIn's, a year and a month such as 202612."
  }

  validation {
    condition = alltrue([
      for app in var.platforms : app.client_secret == null || (
        can(regex("^[A-Za-z0-9_-]{1,255}$", app.client_secret.secret)) && can(regex("^[1-9][0-9]*$", app.client_secret.version))
      )
    ])
    error_message = "platforms: client_secret names a secret by its own id and a version by its number, such as { secret = \"linkedin-client-secret\", version = \"1\" }; never the value."
  }
}

variable "media_bucket" {
  description = "Name of the bucket that holds media; empty: PROJECT-media. Nothing outside of it is read."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = var.media_bucket == "" || can(regex("^[a-z0-9][a-z0-9_-]{1,61}[a-z0-9]$", var.media_bucket))
    error_message = "media_bucket is empty, or a bucket's name of 3 to 63 lower-case letters, digits, hyphens and underscores; without gs://."
  }
}

variable "paused_queues" {
  description = "Queues that are to stand still: they take tasks and dispatch none."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for name in var.paused_queues : contains(keys(local.queues), name)])
    error_message = "paused_queues are named as in topology.json: ${join(", ", keys(local.queues))}."
  }
}

variable "queue_log_sampling" {
  description = "Share of the queues' operations that are logged, from 0 to 1."
  type        = number
  default     = 0.1
  nullable    = false

  validation {
    condition     = var.queue_log_sampling >= 0 && var.queue_log_sampling <= 1
    error_message = "queue_log_sampling is a share, from 0 to 1."
  }
}

variable "backup_kept_days" {
  description = "Days that daily backups of the database are kept."
  type        = number
  default     = 14
  nullable    = false

  validation {
    condition     = var.backup_kept_days >= 1 && var.backup_kept_days <= 98 && floor(var.backup_kept_days) == var.backup_kept_days
    error_message = "backup_kept_days is a whole number from 1 to 98: Firestore keeps backups for at most 14 weeks."
  }
}

variable "sources_kept_days" {
  description = "Days that archives of replaced code are kept."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.sources_kept_days >= 1 && floor(var.sources_kept_days) == var.sources_kept_days
    error_message = "sources_kept_days is a whole number from 1 on."
  }
}

variable "deleted_media_kept_days" {
  description = "Days that deleted or overwritten media can be restored."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.deleted_media_kept_days >= 1 && floor(var.deleted_media_kept_days) == var.deleted_media_kept_days
    error_message = "deleted_media_kept_days is a whole number from 1 on."
  }
}

variable "files_kept_days" {
  description = "Days that files of imports and exports are kept. Their jobs are kept for 30."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.files_kept_days >= 1 && floor(var.files_kept_days) == var.files_kept_days
    error_message = "files_kept_days is a whole number from 1 on."
  }
}

variable "alert_thresholds" {
  description = "When figures become alerts. lateness: 95th percentile of 5 minutes. queue_depth counts tasks that are due in the future too: set it well above the posts that are planned. swept: deliveries in 15 minutes that only the sweep woke."
  type = object({
    lateness_seconds = optional(number, 120)
    queue_depth      = optional(number, 50000)
    swept            = optional(number, 10)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for threshold in values(var.alert_thresholds) : threshold > 0])
    error_message = "alert_thresholds are above 0."
  }
}

variable "labels" {
  description = "Labels on functions and buckets: the bill is told apart by them."
  type        = map(string)
  default     = { app = "tendsocial-jobs" }
  nullable    = false

  validation {
    condition = alltrue([
      for key, value in var.labels :
      can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))
    ])
    error_message = "labels are lower-case letters, digits, hyphens and underscores, 63 at most; keys begin with a letter."
  }
}
