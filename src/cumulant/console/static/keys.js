// Keys of a page: `data-key` names the key that clicks an element; "Enter" waits until no control has the focus.

const typing = (element) => element.closest("textarea, select, [contenteditable], input:not([type=radio])");

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.target instanceof Element)) return;
  if (typing(event.target) || event.target.closest("dialog[open]")) return;
  if (event.key === "Enter" && event.target.closest("a, button, summary")) return;
  const element = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (!element) return;
  event.preventDefault();
  element.click();
}, true);

for (const element of document.querySelectorAll("[data-focus]")) {
  element.addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById(element.dataset.focus)?.focus();
  });
}
