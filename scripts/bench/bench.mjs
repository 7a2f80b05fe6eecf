// Measures Weft beside verified-fetch and Helia in one run: same content (the same
// CIDs), same Chromium, a fresh profile each, the subjects in turn within every
// repetition. Prints a table and writes build/bench.json and build/bench.md.
// Then, from one tab to another, Weft beside Helia and a bare data channel.
// usage: node bench.mjs [subject…]   (through run.sh, which prepares)
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { CHROMIUM } from './browser.mjs'
import { BUILD, MiB, ROOT, noise, smallModule } from './lib.mjs'
import { bundle, heliaTab, servePeers, startKubo, verifiedFetch } from './peers.mjs'
import { markdown, report, text } from './report.mjs'
import { heliaTabs, rawTabs, weftTabs } from './tabs.mjs'
import { size, startRelay, weft } from './weft.mjs'

const RUNS = Number(process.env.RUNS ?? 3)
const MEASURE = { Weft: weft, 'verified-fetch': verifiedFetch, Helia: heliaTab }
const TABS = { Weft: weftTabs, Helia: heliaTabs, 'raw, 16 KiB': rawTabs(16), 'raw, 64 KiB': rawTabs(64), 'raw, 256 KiB': rawTabs(256) }
const TAB_TO_TAB = 'tabs' // as an argument: only what is measured from tab to tab
const named = process.argv.slice(2)
const subjects = named.length > 0 ? named.filter(s => s !== TAB_TO_TAB) : Object.keys(MEASURE)
const pairs = named.length === 0 || named.includes(TAB_TO_TAB) ? Object.keys(TABS) : []
const withWeft = subjects.includes('Weft') || pairs.length > 0

/** Writes a folder of files and returns its path. */
function folder (name, files) {
  const dir = path.join(BUILD, 'content', name)
  fs.mkdirSync(dir, { recursive: true })
  for (const [file, data] of Object.entries(files)) fs.writeFileSync(path.join(dir, file), data)
  return dir
}

const SITE = {
  'm.js': smallModule('site'),
  'index.html': `<!doctype html>
<title>first visit</title>
<script type="module">
import './m.js'
window.imported = performance.now()
</script>
`,
  'join.html': `<!doctype html>
<title>join</title>
<script type="module">
import { join } from '/weft.js'
try {
  const node = window.node = await join()
  const ready = performance.now()
  await import(new URLSearchParams(location.search).get('module'))
  window.marks = { ready, imported: performance.now() }
  await node.online
  window.online = performance.now()
} catch (err) {
  window.failed = String(err?.stack ?? err)
}
</script>
`,
  'tab.html': `<!doctype html>
<title>tab to tab</title>
<script type="module">
import { join } from '/weft.js'
try {
  const node = window.node = await join()
  await node.online
  window.online = true
} catch (err) {
  window.failed = String(err?.stack ?? err)
}
</script>
`
}

async function main () {
  fs.rmSync(BUILD, { recursive: true, force: true })
  fs.mkdirSync(BUILD, { recursive: true })
  const content = {
    first: folder('first', { 'm.js': smallModule('first') }),
    big: folder('big', { '64.bin': noise(64 * MiB, 'big') })
  }
  const far = [1, 2, 3, 4, 5].map(i => folder(`far${i}`, { 'm.js': smallModule(`far ${i}`) }))
  const sizes = await bundle()
  const stops = []
  try {
    const kubo = subjects.length > 0 ? await startKubo() : undefined
    if (kubo) stops.push(kubo.stop)
    const pages = await servePeers()
    stops.push(pages.close)
    const add = put => ({
      first: `/ipfs/${put(content.first)}/m.js`,
      big: `/ipfs/${put(content.big)}/64.bin`,
      far: far.map(dir => `/ipfs/${put(dir)}/m.js`)
    })
    const setup = { kubo, pages, roots: kubo && add(kubo.add) }
    if (withWeft) {
      setup.relay = await startRelay()
      stops.push(setup.relay.stop)
      if (kubo && JSON.stringify(add(setup.relay.publish)) !== JSON.stringify(setup.roots)) throw new Error('the relay and Kubo hold different CIDs')
      setup.siteFolder = folder('site', SITE)
      setup.site = setup.relay.publish(setup.siteFolder)
      sizes.Weft = await size(setup.relay)
    }

    const samples = await turns(MEASURE, subjects, setup)
    for (const s of subjects) for (const sample of samples[s]) Object.assign(sample, sizes[s])
    const between = await turns(TABS, pairs, setup)
    const roots = new Set(Object.values(between).flat().map(({ root }) => root).filter(Boolean))
    if (roots.size > 1) throw new Error(`the tabs hold different CIDs: ${[...roots].join(', ')}`)
    finish(samples, between)
  } finally {
    for (const stop of stops.reverse()) await stop()
    for (const d of ['kubo', 'content', 'weft', 'weft-tabs']) fs.rmSync(path.join(BUILD, d), { recursive: true, force: true })
  }
}

/** Measures every subject in every repetition, and returns the samples by subject. */
async function turns (measure, subjects, setup) {
  const samples = Object.fromEntries(subjects.map(s => [s, []]))
  for (let run = 0; run < RUNS; run++) {
    for (let i = 0; i < subjects.length; i++) {
      const s = subjects[(run + i) % subjects.length] // nobody is always first
      process.stderr.write(`bench: ${s}, ${run + 1} of ${RUNS}\n`)
      samples[s].push(await measure[s](setup))
    }
  }
  return samples
}

function finish (samples, between) {
  const machine = {
    cores: os.availableParallelism(),
    cpu: os.cpus()[0].model,
    chromium: execFileSync(CHROMIUM, ['--version'], { stdio: ['ignore', 'pipe', 'ignore'] }).toString().trim(),
    node: process.version,
    load1: os.loadavg()[0]
  }
  const tables = []
  const print = process.stdout
  print.write(`${machine.cores} cores, ${machine.chromium}, median [min .. max] of ${RUNS}\n`)
  for (const [measured, columns] of [[samples, subjects], [between, pairs]]) {
    if (columns.length === 0) continue
    const rows = report(measured, columns)
    tables.push({ rows, columns })
    print.write(`\n${text(rows, columns)}`)
  }
  const out = { date: new Date().toISOString(), runs: RUNS, machine, tables, samples, between }
  fs.writeFileSync(path.join(ROOT, 'build', 'bench.json'), JSON.stringify(out, null, 1) + '\n')
  fs.writeFileSync(path.join(ROOT, 'build', 'bench.md'), tables.map(({ rows, columns }) => markdown(rows, columns)).join('\n'))
}

await main()
