"""A client as TensorFlow Serving's users write it: the stock tensorflow-serving-api stubs, nothing of ours. Run by a test.

python stock_client.py PORT      prints one JSON object of what it got
"""

from __future__ import annotations

import json
import sys

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)


def main(port: str) -> None:
    """Predict on either arm in both encodings, ask for status and metadata, send one wrong rank."""
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    got: dict[str, object] = {}
    for arm in ("tf", "torch"):
        for encoding in ("content", "typed"):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "digits"
            request.model_spec.signature_name = "serving_default"
            data = np.array([[1, 2], [3, 4]], np.float32)
            if encoding == "content":
                request.inputs["x"].CopyFrom(tf.make_tensor_proto(data))
            else:
                request.inputs["x"].CopyFrom(tf.make_tensor_proto(data.tolist(), shape=[2, 2]))
            response, call = stub.Predict.with_call(request, 10, metadata=(("x-abgate-arm", arm),))
            got[f"{arm} {encoding}"] = {
                "float_val": list(response.outputs["y"].float_val),
                "ndarray": tf.make_ndarray(response.outputs["y"]).tolist(),
                "model": response.model_spec.name,
                "version": response.model_spec.version.value,
                "arm": dict(call.trailing_metadata())["x-abgate-arm"],
            }
    bad = predict_pb2.PredictRequest()
    bad.model_spec.name = "digits"
    bad.inputs["x"].CopyFrom(tf.make_tensor_proto(np.zeros((4,), np.float32)))
    try:
        stub.Predict(bad, 10)
    except grpc.RpcError as error:
        got["wrong rank"] = [error.code().name, error.details()]
    wanted = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    wanted.model_spec.name = "digits"
    signatures = get_model_metadata_pb2.SignatureDefMap()
    stub.GetModelMetadata(wanted, 10).metadata["signature_def"].Unpack(signatures)
    info = signatures.signature_def["serving_default"].inputs["x"]
    got["metadata"] = [tf.dtypes.as_dtype(info.dtype).name, [dim.size for dim in info.tensor_shape.dim]]
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "digits"
    states = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status, 10).model_version_status
    state_name = get_model_status_pb2.ModelVersionStatus.State.Name
    got["status"] = [[entry.version, state_name(entry.state), entry.status.error_code] for entry in states]
    print(json.dumps(got))


if __name__ == "__main__":
    main(sys.argv[1])
