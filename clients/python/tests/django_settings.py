"""A Django project without a database: what throttles need and no more."""

SECRET_KEY = "test"
ROOT_URLCONF = "test_drf"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["rest_framework"]
USE_TZ = True
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_THROTTLE_RATES": {"anon": "3/hour", "user": "5/hour", "uploads": "2/day", "burst": "4/min"},
}
