// @ts-check
// Draws a draft as cloth, in SVG.

const svg = "http://www.w3.org/2000/svg";
/** Distance between threads and their width, in SVG units. */
const pitch = 10, thickness = 9;

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 */
function element(name, attributes) {
  const e = document.createElementNS(svg, name);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, String(v));
  return e;
}

/**
 * @param {import("./draft.js").Draft} draft
 * @returns {SVGElement}
 */
export function loom(draft) {
  const width = draft.warp.length * pitch, height = draft.weft.length * pitch;
  const cloth = element("svg", { viewBox: `0 0 ${width} ${height}`, class: "cloth", role: "img", preserveAspectRatio: "xMidYMid slice" });
  cloth.append(element("title", {}));
  cloth.firstChild?.appendChild(document.createTextNode(`Cloth: ${draft.name}`));
  const inset = (pitch - thickness) / 2;
  const warp = element("g", { class: "warp" });
  draft.warp.forEach((fill, x) => {
    warp.append(element("rect", { x: x * pitch + inset, y: 0, width: thickness, height, fill }));
  });
  cloth.append(warp);
  draft.weft.forEach((fill, y) => {
    const row = element("g", { class: "weft", fill });
    row.style.setProperty("--row", String(y));
    // Neighbouring crossings where the weft is on top are one float.
    for (let x = 0; x < draft.warp.length;) {
      let end = x;
      while (end < draft.warp.length && draft.over(end, y)) end++;
      if (end > x) row.append(element("rect", { x: x * pitch - 0.5, y: y * pitch + inset, width: (end - x) * pitch + 1, height: thickness, rx: 2.5 }));
      x = Math.max(end, x + 1);
    }
    cloth.append(row);
  });
  return cloth;
}
