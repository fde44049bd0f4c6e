"""The ComfyUI side: thin nodes, each a schema and one call into `tbd_core` or the bridge."""

from comfy_api.latest import ComfyExtension, io


if not hasattr(io, "Autogrow"):  # the youngest part of the node API that a schema here uses
    raise ImportError("ComfyUI's node API has no Autogrow, which came with 0.8.0", name="comfy_api.latest")


class Pack(ComfyExtension):
    """All nodes. Their modules, and with them ComfyUI's own, are imported when ComfyUI asks for the list."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        from .batch import TBDBatchCases
        from .converting import TBDConvert
        from .drawing import TBDApplyConditions, TBDSampler
        from .encoding import TBDAudioEncode, TBDReferenceEncode
        from .faces import TBDFindFace, TBDPasteBack
        from .model import TBDAudioEncoderLoader, TBDModelLoader, TBDSampleInputs
        from .rendering import TBDRenderVideo
        from .scheduling import TBDProgressiveScheduler
        from .thinking import TBDEditPrompts, TBDPromptBuilder

        return [
            TBDModelLoader,
            TBDAudioEncoderLoader,
            TBDSampleInputs,
            TBDPromptBuilder,
            TBDEditPrompts,
            TBDProgressiveScheduler,
            TBDAudioEncode,
            TBDReferenceEncode,
            TBDSampler,
            TBDApplyConditions,
            TBDRenderVideo,
            TBDBatchCases,
            TBDFindFace,
            TBDPasteBack,
            TBDConvert,
        ]
