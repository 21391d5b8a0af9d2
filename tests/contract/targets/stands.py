"""Every target that the contract is run on: platform and action, and what opens it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.contract.targets import (
    stand_argocd,
    stand_asg,
    stand_azure,
    stand_cert_manager,
    stand_certificate_file,
    stand_ecs,
    stand_git,
    stand_github,
    stand_kubernetes,
    stand_lambda,
    stand_local_process,
    stand_log_files,
    stand_pod_logs,
)
from tests.contract.targets.stand import Opens

STANDS: Mapping[str, Opens] = {
    **stand_argocd.STANDS,
    **stand_asg.STANDS,
    **stand_azure.STANDS,
    **stand_cert_manager.STANDS,
    **stand_certificate_file.STANDS,
    **stand_ecs.STANDS,
    **stand_git.STANDS,
    **stand_github.STANDS,
    **stand_kubernetes.STANDS,
    **stand_lambda.STANDS,
    **stand_local_process.STANDS,
    **stand_log_files.STANDS,
    **stand_pod_logs.STANDS,
}
