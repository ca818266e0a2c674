# Secrets are made by hand and read by reference: no value is ever in a plan or a state. Their
# versions are pinned, because an instance reads them once, when it starts.

locals {
  webhook_secret = merge(
    { WEBHOOK_SECRET = { secret = var.webhook_secret.secret, version = var.webhook_secret.version } },
    var.webhook_secret.previous_version == null ? {} : {
      WEBHOOK_SECRET_PREVIOUS = { secret = var.webhook_secret.secret, version = var.webhook_secret.previous_version }
    },
  )
  token_keys = { TOKEN_KEYS = { secret = var.token_keys.secret, version = var.token_keys.version } }
  alert_secret = var.alert_webhook.url == "" ? {} : {
    ALERT_WEBHOOK_SECRET = { secret = var.alert_webhook.secret, version = var.alert_webhook.version }
  }
  client_secrets = {
    for platform, app in var.platforms :
    "${upper(platform)}_CLIENT_SECRET" => app.client_secret if app.client_secret != null
  }

  # function => variable => secret and version
  secrets = {
    for name, _ in local.functions : name => merge(
      local.webhook_secret,
      contains(keys(local.opens_tokens), name) ? local.token_keys : {},
      contains(keys(local.asks_platforms), name) ? local.client_secrets : {},
      contains(keys(local.sends_alerts), name) ? local.alert_secret : {},
    )
  }

  secret_readers = merge([
    for name, secrets in local.secrets : {
      for secret in toset([for one in secrets : one.secret]) : "${name}/${secret}" => { function = name, secret = secret }
    }
  ]...)
}

resource "google_secret_manager_secret_iam_member" "reads" {
  for_each = local.secret_readers

  project   = local.project
  secret_id = each.value.secret
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.function[each.value.function].member
}
