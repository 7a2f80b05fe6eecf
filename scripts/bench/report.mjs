// The table: printed, as JSON, and as Markdown rows for BENCHMARKS.md.
import { summary } from './lib.mjs'

const mib = n => n / (1 << 20)
const kib = n => n / 1024

// key, what it is, unit, conversion. "MiB/s" is better when higher, the rest when lower.
const ROWS = [
  ['visit', 'first visit, plain HTTP: navigation → first 2 KB module imported', 'ms'],
  ['ready', 'navigation → verified fetches work', 'ms'],
  ['imported', 'navigation → first 2 KB module imported, verified', 'ms'],
  ['online', 'navigation → libp2p node ready and connected', 'ms'],
  ['local', 'warm, 2 KB, block local: first byte', 'ms'],
  ['remote', 'warm, 2 KB, block not local: first byte', 'ms'],
  ['woken', 'worker was stopped, 2 KB, block local: first byte', 'ms'],
  ['wokenNode', 'worker was stopped → libp2p node answers', 'ms'],
  ['bulk', '64 MiB from the network, verified and persisted', 'MiB/s'],
  ['bulkFirst', '64 MiB from the network: first byte', 'ms'],
  ['bulkCpu', '64 MiB from the network: CPU of the browser, per MiB', 'ms'],
  ['disk', '64 MiB again from disk', 'MiB/s'],
  ['diskFirst', '64 MiB again from disk: first byte', 'ms'],
  ['peakRenderers', 'peak memory during 64 MiB, renderer processes (RSS)', 'MiB', mib],
  ['peakBrowser', 'peak memory during 64 MiB, whole browser (RSS)', 'MiB', mib],
  ['dial', 'WebRTC: dial → connected', 'ms'],
  ['tabs', '64 MiB tab to tab, verified and persisted; raw: neither', 'MiB/s'],
  ['tabsFirst', '64 MiB tab to tab: first byte', 'ms'],
  ['tabsCpu', '64 MiB tab to tab: CPU of the browser, both tabs, per MiB', 'ms'],
  ['raw', 'client download, raw', 'KiB', kib],
  ['brotli', 'client download, brotli', 'KiB', kib],
  ['wasmRaw', '… of which wasm, raw', 'KiB', kib],
  ['wasmBrotli', '… of which wasm, brotli', 'KiB', kib]
]

const round = x => x >= 100 ? String(Math.round(x)) : x.toFixed(1)
const cell = s => s === undefined ? '–' : s.min === s.max ? round(s.median) : `${round(s.median)} [${round(s.min)} .. ${round(s.max)}]`

/**
 * @param {Record<string, Record<string, number>[]>} samples subject → one object of figures per repetition
 * @param {string[]} subjects in order; the first is compared with the others
 */
export function report (samples, subjects) {
  const rows = []
  for (const [key, title, unit, convert = x => x] of ROWS) {
    const by = {}
    for (const s of subjects) {
      const values = samples[s].map(r => r[key]).filter(v => v !== undefined).map(convert)
      if (values.length > 0) by[s] = summary(values)
    }
    const ours = by[subjects[0]]
    if (ours === undefined) continue
    const ratios = {}
    for (const s of subjects.slice(1)) if (by[s]) ratios[s] = ours.median / by[s].median
    rows.push({ key, title, unit, by, ratios })
  }
  return rows
}

export function markdown (rows, subjects) {
  const [ours, ...peers] = subjects
  const head = ['', 'unit', ...subjects, ...peers.map(p => `${ours} ÷ ${p}`)]
  const lines = rows.map(r => [r.title, r.unit, ...subjects.map(s => cell(r.by[s])), ...peers.map(p => p in r.ratios ? r.ratios[p].toFixed(2) : '–')])
  return [head, head.map((_, i) => i < 2 ? '---' : '---:'), ...lines].map(l => `| ${l.join(' | ')} |`).join('\n') + '\n'
}

/** The same as aligned columns for a terminal. */
export function text (rows, subjects) {
  const cells = markdown(rows, subjects).trim().split('\n').filter((_, i) => i !== 1).map(l => l.slice(2, -2).split(' | '))
  const width = cells[0].map((_, i) => Math.max(...cells.map(c => c[i].length)))
  return cells.map(c => c.map((v, i) => i < 2 ? v.padEnd(width[i]) : v.padStart(width[i])).join('  ')).join('\n') + '\n'
}
