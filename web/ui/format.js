// @ts-check
// Numbers as people read them.

const units = ["B", "KB", "MB", "GB", "TB"];

/** @param {number} n bytes @returns {string} for example "3.4 MB", in powers of 1000 as browsers and disks count */
export function bytes(n) {
  let unit = 0;
  while (n >= 999.5 && unit < units.length - 1) {
    n /= 1000;
    unit++;
  }
  return `${n.toLocaleString("en", { maximumFractionDigits: unit && n < 99.5 ? 1 : 0 })} ${units[unit]}`;
}

/** @param {number} n */
export const count = (n) => n.toLocaleString("en");

/** The ends of a long identifier. @param {string} id */
export const short = (id) => (id.length > 20 ? `${id.slice(0, 8)}…${id.slice(-6)}` : id);
