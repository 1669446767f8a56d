"""The processes of a served project under one supervisor: gateway, one server a version, controller."""
