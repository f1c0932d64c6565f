"""What a person calls in a notebook: `Run`, its views, contact sheets, the dataset card."""
