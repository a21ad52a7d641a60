"""What vectors are made from and measured on: behaviours, contrastive pairs, evaluations."""
