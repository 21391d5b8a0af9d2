# What vulture cannot see being used, each with its reason.
model_config  # pydantic reads it
schema_version  # stored JSON says which form it has
exit_code  # click reads it from the exception
collect  # prometheus_client's collector protocol
resultType  # a field of Prometheus' answer, which is validated whole
max_replicas  # a field of the control API's answer, which is validated whole
retries  # urllib3's retries are switched off through it in the Kubernetes client's configuration
AUTONOMOUS, PREDICTIVE  # phases that people may ask for and are refused until they run
op  # the discriminator of stored operations
proxy  # slack_sdk reads it
click_in_view, close_view  # what a person can do at the page; the tests of the local Slack do it
memory_bytes, memory_limit_bytes  # fields of the control API's answer, which the page shows
MemoryLocks, FINOPS  # the double of the lock port, held to it by the contract suite; a priority that other agents take
raiseExceptions  # logging reads it
OPEN_EXECUTION_STATES  # what an index of migration 0001 says too; a test compares the two
stream_output, stream, fmt  # botocore's names for what its hooks are called with
success  # a field of CloudWatch's answer, which is validated whole
converter  # logging reads it from its formatter
COMPILED, checkpoint, restore, not_finite, duplicate, future  # pipeline.detectors is a public API; tests and benches use all of it
ir_version, inter_op_num_threads, intra_op_num_threads, log_severity_level  # onnxruntime reads them
model_type, hidden_act, position_embedding_type, is_decoder, default_prompt_name  # fields of a model's files, validated whole
pooling_mode_max_tokens, pooling_mode_mean_sqrt_len_tokens, pooling_mode_weightedmean_tokens, pooling_mode_lasttoken  # the same
