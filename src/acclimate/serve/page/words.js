// What the page says, in English and Chinese: by the browser's language, until somebody chooses.

import { keep, kept } from "./dom.js";

const NAME = "acclimate-language";

/** Key -> text; a list is singular and plural, by the value `n`. */
export const TEXTS = {
  en: {
    title: "Search",
    query: "Search the documents",
    search: "Search",
    skip: "Skip to the results",
    other_language: "中文",
    switch_language: "切换到中文",
    theme: "Colours: {name}",
    theme_system: "as the system",
    theme_light: "light",
    theme_dark: "dark",
    service: "Service",
    help: "Keys",
    close: "Close",
    mode: "Find by",
    mode_hybrid: "both",
    mode_dense: "meaning",
    mode_lexical: "words",
    adapter: "Adapter",
    adapter_own: "the run's own: {name}",
    route_auto: "choose by the query",
    route_mix: "mix by the query",
    route_fuse: "fuse all results",
    index: "Index",
    rerank: "Rerank",
    compare: "Compare with the base",
    answer: "Answer",
    answer_stop: "Stop",
    filters: "Filters",
    filters_on: ["{n} filter", "{n} filters"],
    filters_clear: "Clear filters",
    filter_expression: "Filter expression",
    filter_sample: "Fields of the first 200 documents.",
    filter_least: "{name}, at least",
    filter_most: "{name}, at most",
    base: "Base",
    adapted: "Adapted",
    shown: "Ranking shown",
    found: ["{n} document", "{n} documents"],
    found_in: "{found} in {ms} ms",
    nothing: "No document answers this query.",
    nothing_filtered: "No document that passes the filter answers this query.",
    start: "Ask in your own words. The base model’s ranking and the adapted one appear side by side, with what moved.",
    start_single: "Ask in your own words.",
    searching: "Searching …",
    comparing: "Asking the base …",
    moved_up_label: "up from rank {from} to {to}",
    moved_down_label: "down from rank {from} to {to}",
    stayed: "same rank",
    entered: "new",
    entered_label: "new: the base has it below rank {depth}",
    left: "gone",
    left_label: "gone: not among the first {depth} of the adapted ranking",
    summary_moves: "{up} up, {down} down, {entered} new, {same} unmoved",
    rank: "rank {rank}",
    why_dense: "meaning {rank}",
    why_lexical: "words {rank}",
    why_label: "Rank by way of search: {ways}",
    more: "More",
    less: "Less",
    relevant: "Relevant",
    not_relevant: "Not relevant",
    marked: "Marked “{mark}”.",
    not_marked: "The mark was not stored: {reason}",
    pool_note: ["The base’s order of the {n} document that words or the adapted model find: the index holds no vectors of the base.", "The base’s order of the {n} documents that words or the adapted model find: the index holds no vectors of the base."],
    compare_lexical: "A search by words alone does not use a model: there is nothing to compare.",
    compare_rerank: "The index holds no vectors of the base, so a reranked search cannot be compared.",
    compare_only_base: "This index is searched by the base itself.",
    route: "Route",
    route_weights: "Weights of the adapters",
    route_distance: "distance {distance}",
    answer_title: "Answer",
    answer_none: "The documents do not answer this.",
    answer_sources: "Sources",
    answer_struck: ["{n} citation named no retrieved document and was removed.", "{n} citations named no retrieved document and were removed."],
    answer_usage: "{model} · {prompt} tokens read, {completion} written",
    answering: "Reading the documents …",
    citation: "Source {number}",
    stopped: "Stopped.",
    key_title: "This service asks for a key",
    key_note: "It is kept in this tab only, until the tab is closed.",
    key_label: "API key",
    key_use: "Use it",
    key_wrong: "The service does not know this key.",
    key_forget: "Forget key",
    loading: "The models are being loaded. This page goes on by itself.",
    unreachable: "The service cannot be reached. Trying again.",
    no_index: "No run is served that has an index. Start one with: acclimate serve RUN",
    failed: "Not done: {message}",
    service_title: "This service",
    service_base: "Base model",
    service_reranker: "Reranker",
    service_version: "Version",
    service_none: "none",
    indexes: "Indexes",
    models: "Models",
    caches: "Caches",
    col_name: "Name",
    col_documents: "Documents",
    col_backend: "Kept in",
    col_size: "Size",
    col_change: "Changes",
    col_language: "Stems",
    col_space: "Space",
    col_model: "Searched by",
    col_sides: "Changes",
    col_dimensions: "Dimensions",
    col_hash: "Hash",
    col_cache: "Cache",
    sides_both: "queries and documents",
    sides_query: "queries",
    sides_document: "documents",
    sides_base: "nothing: the base",
    no_caches: "This service keeps no cache.",
    hit_rate: "Hit rate",
    entries: "Entries",
    bytes: "Memory",
    hits: "Hits",
    misses: "Misses",
    help_title: "Keys of the keyboard",
    help_search: "into the search box",
    help_results: "from the search box into the results, and along them",
    help_columns: "to the other ranking",
    help_open: "show the whole document",
    help_relevant: "mark a document relevant, not relevant",
    help_back: "back to the search box",
  },
  zh: {
    title: "搜索",
    query: "搜索文档",
    search: "搜索",
    skip: "跳到结果",
    other_language: "English",
    switch_language: "Switch to English",
    theme: "配色：{name}",
    theme_system: "跟随系统",
    theme_light: "浅色",
    theme_dark: "深色",
    service: "服务",
    help: "快捷键",
    close: "关闭",
    mode: "查找方式",
    mode_hybrid: "两者结合",
    mode_dense: "语义",
    mode_lexical: "字词",
    adapter: "适配器",
    adapter_own: "本次运行的适配器：{name}",
    route_auto: "按查询选择",
    route_mix: "按查询混合",
    route_fuse: "融合各结果",
    index: "索引",
    rerank: "重排",
    compare: "与基础模型对比",
    answer: "回答",
    answer_stop: "停止",
    filters: "筛选",
    filters_on: ["{n} 项筛选", "{n} 项筛选"],
    filters_clear: "清除筛选",
    filter_expression: "筛选表达式",
    filter_sample: "取自前 200 篇文档的字段。",
    filter_least: "{name}，不小于",
    filter_most: "{name}，不大于",
    base: "基础模型",
    adapted: "适配后",
    shown: "显示的排名",
    found: ["{n} 篇文档", "{n} 篇文档"],
    found_in: "{found}，用时 {ms} 毫秒",
    nothing: "没有文档与此查询相关。",
    nothing_filtered: "符合筛选条件的文档中，没有与此查询相关的。",
    start: "用自己的话提问。基础模型与适配后的排名并排显示，并标出位置的变化。",
    start_single: "用自己的话提问。",
    searching: "正在搜索……",
    comparing: "正在查询基础模型……",
    moved_up_label: "从第 {from} 名升至第 {to} 名",
    moved_down_label: "从第 {from} 名降至第 {to} 名",
    stayed: "名次不变",
    entered: "新进",
    entered_label: "新进：在基础模型中排在第 {depth} 名之后",
    left: "移出",
    left_label: "移出：不在适配后的前 {depth} 名中",
    summary_moves: "上升 {up}，下降 {down}，新进 {entered}，不变 {same}",
    rank: "第 {rank} 名",
    why_dense: "语义 {rank}",
    why_lexical: "字词 {rank}",
    why_label: "各查找方式的名次：{ways}",
    more: "展开",
    less: "收起",
    relevant: "相关",
    not_relevant: "不相关",
    marked: "已标记为“{mark}”。",
    not_marked: "标记未保存：{reason}",
    pool_note: ["索引中没有基础模型的向量：这里是基础模型对字词搜索或适配模型所找到的 {n} 篇文档的排序。", "索引中没有基础模型的向量：这里是基础模型对字词搜索或适配模型所找到的 {n} 篇文档的排序。"],
    compare_lexical: "仅按字词搜索时不使用模型，无可对比。",
    compare_rerank: "索引中没有基础模型的向量，重排后的搜索无法对比。",
    compare_only_base: "此索引本来就由基础模型搜索。",
    route: "路由",
    route_weights: "各适配器的权重",
    route_distance: "距离 {distance}",
    answer_title: "回答",
    answer_none: "文档中没有答案。",
    answer_sources: "来源",
    answer_struck: ["{n} 处引用不在检索到的文档中，已删除。", "{n} 处引用不在检索到的文档中，已删除。"],
    answer_usage: "{model} · 读取 {prompt} 个词元，写出 {completion} 个",
    answering: "正在阅读文档……",
    citation: "来源 {number}",
    stopped: "已停止。",
    key_title: "此服务需要密钥",
    key_note: "密钥只保存在此标签页中，关闭后即删除。",
    key_label: "API 密钥",
    key_use: "使用",
    key_wrong: "服务不认识这个密钥。",
    key_forget: "删除密钥",
    loading: "模型正在加载，本页会自动继续。",
    unreachable: "无法连接服务，正在重试。",
    no_index: "当前没有带索引的运行。启动方式：acclimate serve RUN",
    failed: "未完成：{message}",
    service_title: "本服务",
    service_base: "基础模型",
    service_reranker: "重排模型",
    service_version: "版本",
    service_none: "无",
    indexes: "索引",
    models: "模型",
    caches: "缓存",
    col_name: "名称",
    col_documents: "文档数",
    col_backend: "存储",
    col_size: "大小",
    col_change: "变更次数",
    col_language: "词干",
    col_space: "空间",
    col_model: "可用于搜索的模型",
    col_sides: "作用于",
    col_dimensions: "维数",
    col_hash: "哈希",
    col_cache: "缓存",
    sides_both: "查询和文档",
    sides_query: "查询",
    sides_document: "文档",
    sides_base: "无（基础模型）",
    no_caches: "此服务没有缓存。",
    hit_rate: "命中率",
    entries: "条目",
    bytes: "内存",
    hits: "命中",
    misses: "未命中",
    help_title: "键盘快捷键",
    help_search: "进入搜索框",
    help_results: "从搜索框进入结果，并在结果间移动",
    help_columns: "切换到另一侧的排名",
    help_open: "显示完整文档",
    help_relevant: "标记文档为相关、不相关",
    help_back: "回到搜索框",
  },
};

let language = chosen();
const listeners = [];

/** `en` or `zh`. */
export const current = () => language;

/** The text of a key, with its values put in. */
export function say(name, values = {}) {
  const text = TEXTS[language][name];
  const form = Array.isArray(text) ? text[values.n === 1 ? 0 : 1] : text;
  return form.replace(/\{(\w+)\}/g, (_, value) => values[value]);
}

/** Whether there is a text of this name: caches of others bring their own words. */
export const has = (name) => name in TEXTS[language];

/** A model's id as people read it: of a folder, only its name. */
export const brief = (id) => (id.startsWith("/") ? id.slice(id.lastIndexOf("/") + 1) : id);

/** A number, written as the language does. */
export const number = (value) => new Intl.NumberFormat(language).format(value);

/** Call this whenever the language changes. */
export const onLanguage = (listener) => listeners.push(listener);

/** Change to the other language. */
export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  keep("localStorage", NAME, language);
  translate();
  for (const listener of listeners) listener();
}

/** Write the texts of the page's own elements: `data-say` is the content, `data-say-NAME` an attribute. */
export function translate() {
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  for (const element of document.querySelectorAll("[data-say]")) element.textContent = say(element.dataset.say);
  for (const attribute of ["aria-label", "placeholder", "title"]) {
    const name = `data-say-${attribute}`;
    for (const element of document.querySelectorAll(`[${name}]`)) {
      element.setAttribute(attribute, say(element.getAttribute(name)));
    }
  }
}

function chosen() {
  const known = kept("localStorage", NAME);
  if (known in TEXTS) return known;
  const wanted = navigator.languages.find((one) => /^(en|zh)\b/i.test(one)) ?? "en";
  return wanted.toLowerCase().startsWith("zh") ? "zh" : "en";
}
