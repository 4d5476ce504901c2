"""Answer single questions: the calls of the model card, on the embedded model and a CPU."""

import mindspore as ms

from glm3 import AutoConfig, AutoModel, AutoTokenizer

ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")

tokenizer = AutoTokenizer.from_pretrained("tiny")
config = AutoConfig.from_pretrained("tiny")
config.use_past = True
config.seq_length = 256
model = AutoModel.from_config(config)

for query in ["你好", "类型#裙*颜色#红色*风格#简约"]:
    inputs = tokenizer.build_chat_input(query, history=[], role="user")["input_ids"]
    outputs = model.generate(inputs, do_sample=False, top_k=1, max_length=config.seq_length)
    for given, output in zip(inputs, outputs, strict=True):
        print(tokenizer.decode(output[len(given) :]))
