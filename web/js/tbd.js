// CoT-FA Prompt Builder and Edit Prompts show what they have made; what Edit Prompts shows can be taken over and edited.
//
// Only these two kinds of nodes are touched. The texts live in a view that is neither saved nor sent, so that showing
// them changes no graph: only the button "Edit these" ever writes into a field.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const BUILDER = "TBDPromptBuilder";
const EDITOR = "TBDEditPrompts";
const TEXTS = ["coarse", "fine", "negative"];

const WORDS = {
  en: {
    empty: "Run once to see the prompts.",
    thought: "Run once to read the four steps of thought.",
    auto: "These prompts go on.",
    review: "These prompts wait; nothing behind this node runs.",
    edited: "Your own texts go on.",
    edit: "Edit these",
    draw: "Draw these",
    back: "Back to auto",
    tokens: "tokens",
    over: "Write over your own words?",
    fields: "There are other words in",
  },
  zh: {
    empty: "运行一次即可看到提示词。",
    thought: "运行一次即可阅读四步思考。",
    auto: "将使用这些提示词。",
    review: "这些提示词等待确认；此节点之后不会运行。",
    edited: "将使用你自己的文本。",
    edit: "编辑这些",
    draw: "用这些绘制",
    back: "回到 auto",
    tokens: "个词元",
    over: "要覆盖你自己的文字吗？",
    fields: "以下文本框中已有其他文字：",
  },
  ja: {
    empty: "一度実行するとプロンプトが表示されます。",
    thought: "一度実行すると四段階の思考を読めます。",
    auto: "これらのプロンプトが使われます。",
    review: "確認待ちです。このノードより後は実行されません。",
    edited: "あなたの文章が使われます。",
    edit: "これを編集",
    draw: "これで描く",
    back: "auto に戻す",
    tokens: "トークン",
    over: "あなたの文章を上書きしますか？",
    fields: "次の欄に別の文章があります:",
  },
};

const views = new WeakMap(); // node -> the element that shows its texts
const shown = new WeakMap(); // node -> the output that is shown
const warned = new WeakMap(); // node -> the warnings that were last told

function word(key) {
  const locale = String(app.extensionManager?.setting?.get("Comfy.Locale") ?? "en").split("-")[0];
  return (WORDS[locale] ?? WORDS.en)[key];
}

function element(tag, text, style = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  Object.assign(made.style, style);
  return made;
}

function widget(node, name) {
  return node.widgets?.find((one) => one.name === name);
}

function setWidget(node, name, value) {
  const one = widget(node, name);
  one.value = value;
  one.callback?.(value);
}

function addView(node) {
  const box = element("div", "", {
    boxSizing: "border-box",
    height: "100%",
    maxHeight: "420px",
    overflow: "auto",
    padding: "6px 8px",
    borderRadius: "6px",
    fontSize: "12px",
    lineHeight: "1.4",
    userSelect: "text",
    color: "var(--input-text)",
    background: "var(--comfy-input-bg)",
  });
  box.className = "tbd-view";
  // A text is there to be selected and scrolled, not to drag the node or zoom the canvas with.
  box.addEventListener("pointerdown", (event) => event.button === 0 && event.stopPropagation());
  box.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && box.scrollHeight > box.clientHeight) event.stopPropagation();
  });
  const view = node.addDOMWidget("tbd_view", "tbd_view", box, {
    serialize: false, // not in the prompt …
    getValue: () => "",
    setValue: () => {},
    getMinHeight: () => 150,
  });
  view.serialize = false; // … and not in the saved graph
  views.set(node, box);
}

function button(node, key, act) {
  const made = element("button", word(key), { marginRight: "6px", padding: "2px 10px", cursor: "pointer" });
  made.dataset.tbd = key;
  made.addEventListener("click", () => act(node));
  return made;
}

function warnings(output) {
  return (output.warnings ?? []).map((text) => element("div", `⚠ ${text}`, { color: "var(--error-text, #f66)" }));
}

function refresh(node) {
  const box = views.get(node);
  if (!box) return;
  const output = shown.get(node);
  if (node.comfyClass === BUILDER) {
    const text = element("div", output?.text?.[0] ?? word("thought"), { whiteSpace: "pre-wrap" });
    box.replaceChildren(text, ...(output ? warnings(output) : []));
    return;
  }
  const mode = widget(node, "mode")?.value;
  const parts = [element("div", output ? word(mode) : word("empty"), { opacity: "0.8" })];
  if (output) {
    const buttons = element("div", "", { margin: "4px 0 6px" });
    if (mode !== "edited") buttons.append(button(node, "edit", edit));
    if (mode === "review") buttons.append(button(node, "draw", draw));
    if (mode === "edited") buttons.append(button(node, "back", (one) => setWidget(one, "mode", "auto")));
    parts.push(buttons);
    TEXTS.forEach((name, index) => {
      const head = `${name} · ${output.tokens?.[index] ?? "?"} ${word("tokens")}`;
      const body = element("div", output[name]?.[0] ?? "", { whiteSpace: "pre-wrap", marginBottom: "6px" });
      body.dataset.tbd = name;
      parts.push(element("div", head, { fontWeight: "bold" }), body);
    });
    parts.push(...warnings(output));
  }
  box.replaceChildren(...parts);
}

// Copies the shown prompts into the fields; words of a person's own are written over only after a yes.
async function edit(node) {
  const output = shown.get(node);
  const own = TEXTS.map((name) => [`${name}_text`, output[name][0]]).filter(([field, text]) => {
    const value = String(widget(node, field).value ?? "");
    return value.trim() && value !== text;
  });
  if (own.length) {
    const message = `${word("fields")} ${own.map(([field]) => field).join(", ")}`;
    if (!(await app.extensionManager.dialog.confirm({ title: word("over"), message }))) return;
  }
  for (const name of TEXTS) setWidget(node, `${name}_text`, output[name][0]);
  setWidget(node, "mode", "edited");
}

function draw(node) {
  setWidget(node, "mode", "auto");
  app.queuePrompt(0, 1);
}

// "12" or, inside subgraphs, "5:12": from the outermost graph inwards.
function nodeAt(path) {
  let graph = app.rootGraph ?? app.graph;
  let node;
  for (const id of String(path).split(":")) {
    node = graph?.getNodeById?.(id);
    graph = node?.subgraph;
  }
  return node;
}

function show(path, output) {
  const node = nodeAt(path);
  const expected = { [BUILDER]: "text", [EDITOR]: "fine" }[node?.comfyClass];
  if (!expected || !output?.[expected]) return undefined;
  shown.set(node, output);
  refresh(node);
  return node;
}

function onExecuted({ detail }) {
  const node = show(detail.display_node ?? detail.node, detail.output);
  const told = detail.output?.warnings ?? [];
  const key = JSON.stringify([detail.output?.digest, told]);
  if (!node || !told.length || warned.get(node) === key) return;
  warned.set(node, key);
  app.extensionManager.toast.add({ severity: "warn", summary: node.title, detail: told.join("\n"), life: 8000 });
}

app.registerExtension({
  name: "think-before-draw.nodes",

  setup() {
    api.addEventListener("executed", onExecuted);
  },

  nodeCreated(node) {
    if (node.comfyClass !== BUILDER && node.comfyClass !== EDITOR) return;
    addView(node);
    const mode = widget(node, "mode");
    if (mode) {
      const before = mode.callback;
      mode.callback = function (...given) {
        const result = before?.apply(this, given);
        refresh(node);
        node.graph?.setDirtyCanvas?.(true, true);
        return result;
      };
    }
    refresh(node);
  },

  // A saved graph sets widgets without telling them.
  loadedGraphNode(node) {
    refresh(node);
  },

  // Another tab of the page is shown: its nodes are new, its results are not.
  onNodeOutputsUpdated(outputs) {
    for (const [path, output] of Object.entries(outputs ?? {})) show(path, output);
  },
});
