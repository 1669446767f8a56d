"""The processes of a served project under one supervisor: gateway, a server a version, the controller."""
