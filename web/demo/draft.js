// @ts-check
// A weaver's draft: which colour each thread has, and where the weft goes over
// the warp. All of it follows from a seed.

/**
 * @typedef {object} Draft
 * @property {string[]} warp colours of the threads from left to right
 * @property {string[]} weft colours of the threads from top to bottom
 * @property {(x: number, y: number) => boolean} over whether the weft lies on top at a crossing
 * @property {string} name
 */

/** Ways to cross threads: weft x, warp y, both counted from 0. @type {[string, (x: number, y: number) => boolean][]} */
const weaves = [
  ["twill", (x, y) => (x + y) % 4 < 2],
  ["herringbone", (x, y) => ((Math.floor(x / 8) % 2 ? 7 - (x % 8) : x % 8) + y) % 4 < 2],
  ["basket", (x, y) => (Math.floor(x / 2) + Math.floor(y / 2)) % 2 === 0],
  ["broken twill", (x, y) => (x + [0, 1, 3, 2][y % 4]) % 4 < 2],
];

/**
 * @param {{name: string, threads: string[]}[]} dyes
 * @param {(below: number) => number} pick a whole number from the seed
 * @param {number} columns
 * @param {number} rows
 * @returns {Draft}
 */
export function draft(dyes, pick, columns, rows) {
  const dye = dyes[pick(dyes.length)];
  const [name, over] = weaves[pick(weaves.length)];
  // A sett, as a tartan's: bands of colour, mirrored about their middle.
  /** @type {string[]} */
  const sett = [];
  const others = dye.threads.length - 1, first = pick(others);
  for (let band = 0, bands = 5 + pick(4); band < bands; band++) {
    // Broad bands of the ground, and between them each of the other colours in turn.
    const ground = band % 2 === 0;
    const colour = dye.threads[ground ? 0 : 1 + ((first + (band >> 1)) % others)];
    for (let width = ground ? 3 + pick(4) : 2 + pick(5); width > 0; width--) sett.push(colour);
  }
  const whole = [...sett, ...sett.toReversed()];
  const start = pick(whole.length);
  const threads = (/** @type {number} */ n) => Array.from({ length: n }, (_, i) => whole[(start + i) % whole.length]);
  return { warp: threads(columns), weft: threads(rows), over, name: `${dye.name}, ${name}` };
}
