"""The moments at which a patcher calls back."""


class CallbacksMP:
    ON_CLONE = "on_clone"
    ON_CLEANUP = "on_cleanup"
    ON_PRE_RUN = "on_pre_run"


class WrappersMP:
    OUTER_SAMPLE = "outer_sample"
    APPLY_MODEL = "apply_model"
    DIFFUSION_MODEL = "diffusion_model"
