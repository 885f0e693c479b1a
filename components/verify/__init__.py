"""What a lab must look like once it stands, and the reading of one that does. No pulumi import."""
