// The page's words in both languages, and which of the two is shown.

const WORDS = {
  en: {
    skip: "Skip to the message", model: "Model", conversations: "Conversations", settings: "Settings",
    new: "New conversation", untitled: "New conversation", exportAll: "Export all", export: "Export",
    import: "Import", rename: "Rename", delete: "Delete", reallyDelete: "Delete “{title}”?",
    stored: "Conversations stay in this browser.", transcript: "Conversation", message: "Message",
    send: "Send", stop: "Stop", keys: "Enter sends, Shift+Enter starts a line, Escape stops.",
    thisConversation: "This conversation", system: "System prompt",
    tools: "Tools, a JSON list of definitions", example: "Insert an example",
    toolsNote: "A call is shown to you; nothing is run.",
    sampling: "Sampling", samplingNote: "What is left empty is decided by the server.",
    temperature: "Temperature", topP: "Top p", maxTokens: "Longest answer, tokens", seed: "Seed",
    repetition: "Repetition penalty", access: "Access", token: "Bearer token",
    tokenNote: "Kept until this tab is closed.", close: "Close", language: "中文",
    themeAuto: "Theme: as the system has it", themeLight: "Theme: light", themeDark: "Theme: dark",
    user: "You", assistant: "Model", tool: "Result", systemShown: "System prompt and tools",
    copy: "Copy", copied: "Copied", retry: "Retry", edit: "Edit", fork: "Continue in a copy",
    save: "Send again", cancel: "Cancel", call: "The model calls {name}", result: "Result of {name}",
    giveResult: "Give the result", skipCall: "Skip", skipped: "Not answered.",
    answering: "The model is answering.", answered: "The answer is complete.", stopped: "Stopped.",
    cut: "The answer reached its longest length.", welcome: "Ask something.",
    tokens: "{completion} tokens", perSecond: "{rate} tokens/s", first: "first after {seconds} s",
    prompt: "prompt {count}", cached: "{count} of it kept",
    stateReady: "ready", stateLoading: "loading", stateDraining: "shutting down", stateGone: "not reachable",
    stateToken: "needs a token",
    errorRequest: "The server does not accept the request.", errorToken: "The server needs a token it knows.",
    errorLong: "The conversation is too long for the model.", errorModel: "This model is not served here.",
    errorLarge: "The request is too large.", errorBusy: "The server is busy.",
    errorUnavailable: "The server cannot answer now: it is loading or shutting down.",
    errorTime: "The answer took too long.", errorServer: "The server failed at this request.",
    errorNetwork: "The server cannot be reached.", errorBroken: "The answer broke off.",
    retryAfter: "Try again in {seconds} s.", enterToken: "Enter a token",
    errorStorage: "The browser has no room left for conversations; export and delete some.",
    errorTools: "The tools are not right: {reason}", errorImport: "Nothing was imported: {reason}",
    imported: "Conversations imported: {count}.", dismiss: "Dismiss",
  },
  zh: {
    skip: "跳到输入框", model: "模型", conversations: "对话", settings: "设置",
    new: "新对话", untitled: "新对话", exportAll: "全部导出", export: "导出",
    import: "导入", rename: "重命名", delete: "删除", reallyDelete: "删除“{title}”？",
    stored: "对话只保存在此浏览器中。", transcript: "对话内容", message: "输入消息",
    send: "发送", stop: "停止", keys: "Enter 发送，Shift+Enter 换行，Esc 停止。",
    thisConversation: "当前对话", system: "系统提示词",
    tools: "工具定义（JSON 列表）", example: "填入示例",
    toolsNote: "工具调用只显示给你，不会被执行。",
    sampling: "采样", samplingNote: "留空则由服务器决定。",
    temperature: "温度", topP: "Top p", maxTokens: "最长回答（token）", seed: "随机种子",
    repetition: "重复惩罚", access: "访问", token: "访问令牌",
    tokenNote: "仅保留到关闭此标签页。", close: "关闭", language: "English",
    themeAuto: "主题：跟随系统", themeLight: "主题：浅色", themeDark: "主题：深色",
    user: "你", assistant: "模型", tool: "结果", systemShown: "系统提示词与工具",
    copy: "复制", copied: "已复制", retry: "重新回答", edit: "编辑", fork: "在副本中继续",
    save: "重新发送", cancel: "取消", call: "模型调用 {name}", result: "{name} 的结果",
    giveResult: "提交结果", skipCall: "跳过", skipped: "未回应。",
    answering: "模型正在回答。", answered: "回答完毕。", stopped: "已停止。",
    cut: "回答已达最大长度。", welcome: "请提问。",
    tokens: "{completion} 个 token", perSecond: "{rate} token/秒", first: "首个用时 {seconds} 秒",
    prompt: "提示 {count} 个", cached: "其中 {count} 个已缓存",
    stateReady: "就绪", stateLoading: "加载中", stateDraining: "正在关闭", stateGone: "无法连接",
    stateToken: "需要令牌",
    errorRequest: "服务器不接受此请求。", errorToken: "服务器需要有效的访问令牌。",
    errorLong: "对话太长，超出模型上限。", errorModel: "此服务器没有这个模型。",
    errorLarge: "请求过大。", errorBusy: "服务器繁忙。",
    errorUnavailable: "服务器暂时无法回答：正在加载或关闭。",
    errorTime: "回答超时。", errorServer: "服务器处理此请求时出错。",
    errorNetwork: "无法连接服务器。", errorBroken: "回答中断了。",
    retryAfter: "请在 {seconds} 秒后重试。", enterToken: "输入令牌",
    errorStorage: "浏览器存储空间已满，请导出并删除部分对话。",
    errorTools: "工具定义有误：{reason}", errorImport: "没有导入任何内容：{reason}",
    imported: "已导入 {count} 个对话。", dismiss: "关闭",
  },
};

let language = "en";

export function preferredLanguage() {
  return (navigator.language || "").toLowerCase().startsWith("zh") ? "zh" : "en";
}

export function otherLanguage() {
  return language === "zh" ? "en" : "zh";
}

/** Show every marked element of the document in a language. */
export function setLanguage(name) {
  language = name in WORDS ? name : "en";
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = say(element.dataset.text);
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", say(element.dataset.label));
    if (element.tagName === "BUTTON") element.title = say(element.dataset.label);
  }
  for (const element of document.querySelectorAll("[data-placeholder]")) {
    element.placeholder = say(element.dataset.placeholder);
  }
}

/** The words of a key, with {names} filled in. */
export function say(key, values = {}) {
  return WORDS[language][key].replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}
