"""Hold a dialogue with roles: the calls of the model card, on the embedded model and a CPU."""

import mindspore as ms

from glm3 import AutoConfig, AutoModel, AutoTokenizer, process_response

ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")

tokenizer = AutoTokenizer.from_pretrained("tiny")
config = AutoConfig.from_pretrained("tiny")
config.use_past = True
model = AutoModel.from_config(config)
options = {"max_length": config.seq_length, "num_beams": 1, "do_sample": False, "top_p": 1, "top_k": 1}

history = []
for role, text in [
    ("system", "你是一个导游。"),
    ("user", "北京有什么好玩的？"),
    ("user", "谢谢"),
]:
    inputs = tokenizer.build_chat_input(text, history=history, role=role)["input_ids"]
    history.append({"role": role, "content": text})
    outputs = model.generate(inputs, **options)
    response = tokenizer.decode(outputs[0][len(inputs[0]) : -1])  # without the id that ended the answer
    content, history = process_response(response, history)
    print(f"{role}> {text}\n{content}")
