// Saves the chart of a figure as a PNG file: a click on `data-png` draws its SVG, title and legend on a canvas.

const SCALE = 2; // pixels to a unit of the drawing
const GAP = 12;
const PRESENTATION = [
  "fill", "fill-opacity", "font-family", "font-size", "font-weight", "opacity", "paint-order", "stroke", "stroke-dasharray",
  "stroke-linecap", "stroke-linejoin", "stroke-opacity", "stroke-width", "text-anchor",
];

// A copy with its colours as attributes: a style sheet does not reach an image, and inline styles are refused.
function standalone(drawing, width, height) {
  const copy = drawing.cloneNode(true);
  const copies = [copy, ...copy.querySelectorAll("*")];
  [drawing, ...drawing.querySelectorAll("*")].forEach((original, place) => {
    const style = getComputedStyle(original);
    for (const name of PRESENTATION) {
      if (!copies[place].getAttribute(name)?.startsWith("url(")) copies[place].setAttribute(name, style.getPropertyValue(name));
    }
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  return new XMLSerializer().serializeToString(copy);
}

function loaded(text) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("the chart cannot be drawn as an image"));
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  });
}

// The lines above the drawing: its title, then its legend in as many lines as it needs.
function heading(context, figure, width) {
  const styles = getComputedStyle(figure);
  const parts = [];
  const title = figure.querySelector("figcaption");
  let y = GAP;
  if (title && title.compareDocumentPosition(figure.querySelector("svg.chart")) & Node.DOCUMENT_POSITION_FOLLOWING) {
    parts.push({ text: title.textContent.trim(), font: `600 14px ${styles.fontFamily}`, color: styles.color, x: GAP, y: y + 14 });
    y += 24;
  }
  let x = GAP;
  for (const entry of figure.querySelectorAll(".legend li")) {
    const font = `12px ${styles.fontFamily}`;
    context.font = font;
    const text = entry.textContent.trim();
    const wide = context.measureText(text).width + 34;
    if (x > GAP && x + wide > width) [x, y] = [GAP, y + 18];
    const key = getComputedStyle(entry.querySelector(".key"));
    const edge = parseFloat(key.borderTopWidth) > 0 ? key.borderTopColor : null;
    const box = [x, y + 3, 10, parseFloat(key.height) > 0 ? 10 : 0]; // a key without height is a line
    parts.push({ text, font, color: getComputedStyle(entry).color, x: x + 16, y: y + 12 });
    parts.push({ box: box[3] ? box : [x, y + 8, 10, 0], fill: key.backgroundColor, edge, opacity: Number(key.opacity) });
    x += wide;
    if (entry === entry.parentElement.lastElementChild) y += 22;
  }
  return { parts, height: parts.length ? y : 0 };
}

function drawHeading(context, parts) {
  for (const part of parts) {
    context.globalAlpha = part.opacity ?? 1;
    if (part.text) {
      context.font = part.font;
      context.fillStyle = part.color;
      context.fillText(part.text, part.x, part.y);
    } else {
      context.fillStyle = part.fill;
      context.fillRect(...part.box);
      if (part.edge) {
        context.strokeStyle = part.edge;
        context.strokeRect(...part.box);
      }
    }
  }
  context.globalAlpha = 1;
}

async function chartImage(figure) {
  const drawing = figure.querySelector("svg.chart");
  const { width, height } = drawing.viewBox.baseVal;
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  const above = heading(context, figure, width);
  canvas.width = Math.round(width * SCALE);
  canvas.height = Math.round((height + above.height) * SCALE);
  context.scale(SCALE, SCALE);
  context.fillStyle = getComputedStyle(figure).backgroundColor;
  context.fillRect(0, 0, width, height + above.height);
  drawHeading(context, above.parts);
  context.drawImage(await loaded(standalone(drawing, width, height)), 0, above.height, width, height);
  const image = await new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
  if (!image) throw new Error("the browser is out of memory");
  return image;
}

document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-png]") : null;
  if (!button) return;
  const figure = button.closest("figure");
  figure.querySelector(".png-failure")?.remove();
  const link = document.createElement("a");
  try {
    link.href = URL.createObjectURL(await chartImage(figure));
  } catch (error) {
    const failure = document.createElement("span");
    failure.className = "png-failure";
    failure.setAttribute("role", "alert");
    failure.textContent = `The image could not be drawn: ${error.message}. The table and the CSV file have the numbers.`;
    button.after(failure);
    return;
  }
  const place = decodeURIComponent(location.pathname).split("/").filter(Boolean).slice(1);
  link.download = `${[...place, button.dataset.png].join("-").replace(/[^\p{L}\d.]+/gu, "-")}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
});
