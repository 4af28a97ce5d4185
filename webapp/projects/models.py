"""Projects: whose checkpoints, endpoints and runs these are, and who may do what with them."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Role(models.TextChoices):
    """What a member may do in a project; each role may do what the ones before it may."""

    VIEWER = "viewer", "viewer"  # look at everything, download it
    OPERATOR = "operator", "operator"  # launch, upload, register; decide about what is theirs
    ADMIN = "admin", "admin"  # decide about everything in the project, and about its members


# A role → the roles that include it.
AT_LEAST: dict[Role, tuple[Role, ...]] = {
    role: tuple(Role)[place:] for place, role in enumerate(Role)
}


class Project(models.Model):
    """A room of the installation: checkpoints, endpoints and runs belong to one."""

    name = models.CharField(max_length=100, unique=True)
    open = models.BooleanField(
        default=False, help_text="everyone who signs in is a viewer of it and may use its models"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    members = models.ManyToManyField(
        settings.AUTH_USER_MODEL, through="Membership", related_name="projects"
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A person in a project, in one role."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=10, choices=Role)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["user__username"]
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="one_membership_in_a_project")
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.project}: {self.role}"


class Invitation(models.Model):
    """A link to join a project in a role: webapp/projects/invitations.py."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField()
    role = models.CharField(max_length=10, choices=Role)
    digest = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the link's token")
    invited_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    accepted_at = models.DateTimeField(null=True)
    accepted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.email} as {self.role}"
