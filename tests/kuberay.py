"""The shape of KubeRay's RayJob and RayCluster, as far as the manifests in docs/kuberay need it: field names, types, and what is required.

After ray-operator/apis/ray/v1 (rayjob_types.go, raycluster_types.go) of KubeRay with `authOptions`, and Kubernetes' core/v1 for the pods. A
field that is not here is an error, as it is for `kubectl apply --validate=strict`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
"""Kubernetes takes numbers too, but YAML's `2` and `"2"` should not both be in use."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class Strict(BaseModel):
    """No unknown fields, and no text for a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Meta(Strict):
    """Of the whole resource, and of a pod template."""

    name: Name | None = None
    namespace: Name | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Resources(Strict):
    """Of one container; extended resources such as GPUs are quantities too."""

    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class Mount(Strict):
    """Where a volume of the pod is seen."""

    name: Name
    mountPath: Annotated[str, Field(pattern="^/")]
    readOnly: bool = False
    subPath: str = ""


class Container(Strict):
    """The fields of a core/v1 Container that a Ray pod uses."""

    name: Name
    image: str
    command: list[str] = []
    args: list[str] = []
    env: list[dict[str, Any]] = []
    envFrom: list[dict[Literal["secretRef", "configMapRef", "prefix"], Any]] = []
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"] | None = None
    ports: list[dict[str, Any]] = []
    resources: Resources = Resources()
    securityContext: dict[str, Any] = {}
    volumeMounts: list[Mount] = []


class Claim(Strict):
    """A reference to a persistent volume claim."""

    claimName: Name
    readOnly: bool = False


class Volume(Strict):
    """One of the sources of a core/v1 Volume."""

    name: Name
    configMap: dict[str, Any] | None = None
    secret: dict[str, Any] | None = None
    emptyDir: dict[str, Any] | None = None
    hostPath: dict[str, Any] | None = None
    persistentVolumeClaim: Claim | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "Volume":
        if len(self.model_fields_set) != 2:
            raise ValueError("a volume has a name and one source")
        return self


class Toleration(Strict):
    """core/v1 Toleration."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Pod(Strict):
    """The fields of a core/v1 PodSpec that a Ray pod uses."""

    containers: Annotated[list[Container], Field(min_length=1)]
    initContainers: list[Container] = []
    imagePullSecrets: list[dict[Literal["name"], str]] = []
    nodeSelector: dict[str, str] = {}
    serviceAccountName: str | None = None
    terminationGracePeriodSeconds: Count | None = None
    tolerations: list[Toleration] = []
    volumes: list[Volume] = []

    @model_validator(mode="after")
    def _mounts_have_volumes(self) -> "Pod":
        there = {volume.name for volume in self.volumes}
        for container in [*self.containers, *self.initContainers]:
            if missing := {mount.name for mount in container.volumeMounts} - there:
                raise ValueError(f"no volume of the pod is called {', '.join(sorted(missing))}")
        return self


class PodTemplate(Strict):
    """core/v1 PodTemplateSpec."""

    metadata: Meta = Meta()
    spec: Pod


class HeadGroup(Strict):
    """HeadGroupSpec."""

    template: PodTemplate
    headService: dict[str, Any] | None = None
    enableIngress: bool | None = None
    resources: dict[str, str] = {}
    labels: dict[str, str] = {}
    rayStartParams: dict[str, str] = {}
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None


class WorkerGroup(Strict):
    """WorkerGroupSpec."""

    groupName: Name
    replicas: Count = 0
    minReplicas: Count
    maxReplicas: Count
    numOfHosts: Annotated[int, Field(ge=1)] = 1
    idleTimeoutSeconds: Count | None = None
    suspend: bool = False
    resources: dict[str, str] = {}
    labels: dict[str, str] = {}
    rayStartParams: dict[str, str] = {}
    template: PodTemplate

    @model_validator(mode="after")
    def _in_order(self) -> "WorkerGroup":
        if not self.minReplicas <= self.replicas <= self.maxReplicas:
            raise ValueError("replicas must be between minReplicas and maxReplicas")
        return self


class Autoscaler(Strict):
    """AutoscalerOptions."""

    resources: Resources | None = None
    image: str | None = None
    imagePullPolicy: str | None = None
    securityContext: dict[str, Any] | None = None
    idleTimeoutSeconds: Count | None = None
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] | None = None
    version: Literal["v1", "v2"] | None = None
    env: list[dict[str, Any]] = []
    envFrom: list[dict[str, Any]] = []
    volumeMounts: list[Mount] = []


class Auth(Strict):
    """AuthOptions."""

    mode: Literal["disabled", "token"] = "token"
    secretName: str | None = None
    enableK8sTokenAuth: bool | None = None


class ClusterSpec(Strict):
    """RayClusterSpec."""

    rayVersion: str | None = None
    enableInTreeAutoscaling: bool | None = None
    autoscalerOptions: Autoscaler | None = None
    authOptions: Auth | None = None
    gcsFaultToleranceOptions: dict[str, Any] | None = None
    headServiceAnnotations: dict[str, str] = {}
    managedBy: str | None = None
    suspend: bool | None = None
    upgradeStrategy: dict[Literal["type"], Literal["Recreate", "None"]] | None = None
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup] = []

    @model_validator(mode="after")
    def _groups(self) -> "ClusterSpec":
        names = [group.groupName for group in self.workerGroupSpecs]
        if len(set(names)) != len(names):
            raise ValueError("two worker groups have one name")
        if self.autoscalerOptions and not self.enableInTreeAutoscaling:
            raise ValueError("autoscalerOptions are for enableInTreeAutoscaling")
        return self


class JobSpec(Strict):
    """RayJobSpec."""

    entrypoint: str
    rayClusterSpec: ClusterSpec | None = None
    clusterSelector: dict[str, str] = {}
    activeDeadlineSeconds: Annotated[int, Field(ge=1)] | None = None
    backoffLimit: Count = 0
    deletionStrategy: dict[str, Any] | None = None
    entrypointNumCpus: float = 0.0
    entrypointNumGpus: float = 0.0
    entrypointResources: str | None = None
    jobId: str | None = None
    managedBy: str | None = None
    metadata: dict[str, str] = {}
    runtimeEnvYAML: str | None = None
    shutdownAfterJobFinishes: bool = False
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"] = "K8sJobMode"
    submitterConfig: dict[Literal["backoffLimit"], Count] | None = None
    submitterPodTemplate: PodTemplate | None = None
    suspend: bool = False
    ttlSecondsAfterFinished: Count = 0

    @model_validator(mode="after")
    def _time_to_live(self) -> "JobSpec":
        if self.ttlSecondsAfterFinished and not self.shutdownAfterJobFinishes:
            raise ValueError("ttlSecondsAfterFinished works with shutdownAfterJobFinishes alone")
        return self


class RayCluster(Strict):
    """A cluster that stays."""

    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Meta
    spec: ClusterSpec


class RayJob(Strict):
    """A job with a cluster of its own."""

    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Meta
    spec: JobSpec
