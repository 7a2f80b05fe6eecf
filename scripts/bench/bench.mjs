// Measures Weft beside verified-fetch and Helia in one run: same content (the same
// CIDs), same Chromium, a fresh profile each, the subjects in turn within every
// repetition. Prints a table and writes build/bench.json and build/bench.md.
// usage: node bench.mjs [subject…]   (through run.sh, which prepares)
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { CHROMIUM } from './browser.mjs'
import { BUILD, MiB, ROOT, noise, smallModule } from './lib.mjs'
import { bundle, heliaTab, servePeers, startKubo, verifiedFetch } from './peers.mjs'
import { markdown, report, text } from './report.mjs'
import { size, startRelay, weft } from './weft.mjs'

const RUNS = Number(process.env.RUNS ?? 3)
const MEASURE = { Weft: weft, 'verified-fetch': verifiedFetch, Helia: heliaTab }
const subjects = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(MEASURE)
const withWeft = subjects.includes('Weft')

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
    const kubo = await startKubo()
    stops.push(kubo.stop)
    const pages = await servePeers()
    stops.push(pages.close)
    const add = put => ({
      first: `/ipfs/${put(content.first)}/m.js`,
      big: `/ipfs/${put(content.big)}/64.bin`,
      far: far.map(dir => `/ipfs/${put(dir)}/m.js`)
    })
    const setup = { kubo, pages, roots: add(kubo.add) }
    if (withWeft) {
      setup.relay = await startRelay()
      stops.push(setup.relay.stop)
      const published = add(setup.relay.publish)
      if (JSON.stringify(published) !== JSON.stringify(setup.roots)) throw new Error('the relay and Kubo hold different CIDs')
      setup.site = setup.relay.publish(folder('site', SITE))
      sizes.Weft = await size(setup.relay)
    }

    const samples = Object.fromEntries(subjects.map(s => [s, []]))
    for (let run = 0; run < RUNS; run++) {
      for (let i = 0; i < subjects.length; i++) {
        const s = subjects[(run + i) % subjects.length] // nobody is always first
        process.stderr.write(`bench: ${s}, ${run + 1} of ${RUNS}\n`)
        samples[s].push({ ...await MEASURE[s](setup), ...sizes[s] })
      }
    }
    finish(samples)
  } finally {
    for (const stop of stops.reverse()) await stop()
    for (const d of ['kubo', 'content', 'weft-home', 'weft-relay', 'weft-publisher']) fs.rmSync(path.join(BUILD, d), { recursive: true, force: true })
  }
}

function finish (samples) {
  const machine = {
    cores: os.availableParallelism(),
    cpu: os.cpus()[0].model,
    chromium: execFileSync(CHROMIUM, ['--version'], { stdio: ['ignore', 'pipe', 'ignore'] }).toString().trim(),
    node: process.version,
    load1: os.loadavg()[0]
  }
  const rows = report(samples, subjects)
  const out = { date: new Date().toISOString(), runs: RUNS, machine, rows, samples }
  fs.writeFileSync(path.join(ROOT, 'build', 'bench.json'), JSON.stringify(out, null, 1) + '\n')
  fs.writeFileSync(path.join(ROOT, 'build', 'bench.md'), markdown(rows, subjects))
  process.stdout.write(`${machine.cores} cores, ${machine.chromium}, median [min .. max] of ${RUNS}\n\n${text(rows, subjects)}`)
}

await main()
