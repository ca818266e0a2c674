# What a function is built from: its own two files, and `shared` beside them, so that `import shared`
# is the same there as in the checkout.

locals {
  root   = "${path.module}/.."
  shared = { for file in fileset(local.root, "shared/**/*.py") : file => "${local.root}/${file}" }

  # function => name in the archive => file
  archives = {
    for name, _ in local.functions : name => merge(local.shared, {
      "main.py"          = "${local.root}/functions/${name}/main.py"
      "requirements.txt" = "${local.root}/functions/${name}/requirements.txt"
    })
  }

  # Of names and contents, and in the object's name: only changed code is deployed again.
  digests = {
    for name, files in local.archives :
    name => sha256(join("\n", [for inside, file in files : "${filesha256(file)} ${inside}"]))
  }
}

data "archive_file" "source" {
  for_each = local.archives

  type             = "zip"
  output_path      = "${path.module}/.build/${each.key}-${substr(local.digests[each.key], 0, 12)}.zip"
  output_file_mode = "0644" # whatever the checkout's umask was

  dynamic "source" {
    for_each = each.value

    content {
      filename = source.key
      content  = file(source.value)
    }
  }
}

resource "google_storage_bucket_object" "source" {
  for_each = local.archives

  bucket = google_storage_bucket.sources.name
  name   = "${each.key}/${local.digests[each.key]}.zip"
  source = data.archive_file.source[each.key].output_path
}
