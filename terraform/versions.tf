terraform {
  required_version = ">= 1.9" # validations below look at more than their own variable

  required_providers {
    google = {
      source = "hashicorp/google"
      # 7.46 and 8.7 are what this folder is checked against.
      version = ">= 7.46, < 9.0"
    }
    archive = {
      source  = "hashicorp/archive"
      version = "~> 2.8"
    }
    time = {
      source  = "hashicorp/time"
      version = "~> 0.14"
    }
  }

  # The bucket is named when the folder is initialised: terraform init -backend-config=bucket=NAME
  backend "gcs" {
    prefix = "tendsocial-jobs"
  }
}

provider "google" {
  project = var.project
  region  = var.region
}
