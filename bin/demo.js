#!/usr/bin/env node
// Captures from the simulated exchange for a while, then shows the files and reads them with jq. Without jq on this
// machine node reads them. Both start scripts run this: `./start.sh demo`, with another length `./start.sh demo 5m`.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const PROGRAM = fileURLToPath(new URL('./l3cap.js', import.meta.url))
const WINDOWS = process.platform === 'win32'

// Each view twice: as a jq filter and as a line of JavaScript. No quotes of either kind in them, so that the commands
// can be pasted into any shell.
const VIEWS = [
  {
    title: 'Best bid, best ask and spread, from the snapshots',
    feed: 'l3_spot',
    jq: ['-r', '[.timestamp_utc, .best_bid, .best_ask, .stats.spread] | @tsv'],
    node: 'for (const r of lines) console.log([r.timestamp_utc, r.best_bid, r.best_ask, r.stats.spread].join(`\\t`))'
  },
  {
    title: 'How many events of each type',
    feed: 'l3_events',
    jq: ['-nc', 'reduce inputs.event_type as $type ({}; .[$type] += 1)'],
    node: 'const n = {}; for (const r of lines) n[r.event_type] = (n[r.event_type] ?? 0) + 1; console.log(JSON.stringify(n))'
  },
  {
    title: 'What happened to the capture',
    feed: 'status',
    jq: ['-c', '{timestamp_utc, event, detail}'],
    node: 'for (const r of lines) console.log(JSON.stringify({ timestamp_utc: r.timestamp_utc, event: r.event, detail: r.detail }))'
  }
]
const READ_LINES =
  'const lines = process.argv.slice(1).flatMap(f => require(`fs`).readFileSync(f, `utf8`).trim().split(`\\n`).filter(Boolean).map(JSON.parse)); '

/** The first of vault-demo, vault-demo-2, … that does not exist, so that nothing is overwritten or removed. */
function freshVault() {
  let name = 'vault-demo'
  for (let number = 2; existsSync(name); number++) name = `vault-demo-${number}`
  return name
}

/** Runs l3cap to its end and resolves to its exit code. Ctrl-C stops the capture early; what it wrote is still shown. */
function capture(vault, duration) {
  const words = ['run', '--simulate', '--exchange', 'bitfinex', '--symbol', 'BTCUSD', '--duration', duration]
  process.stdout.write(`Capturing ${duration} from a simulated Bitfinex into ${vault}\n`)
  process.stdout.write(`$ l3cap ${words.join(' ')} --vault ${vault}\n`)
  const child = spawn(process.execPath, [PROGRAM, ...words, '--vault', vault], { stdio: 'inherit' })
  process.on('SIGINT', () => {}) // A terminal sends it to the child as well.
  process.on('SIGTERM', () => child.kill('SIGTERM'))
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('exit', code => resolve(code ?? 1))
  })
}

/** All files below a directory, in order of their paths. */
function filesBelow(directory) {
  if (!existsSync(directory)) return []
  return readdirSync(directory, { withFileTypes: true })
    .sort((one, other) => (one.name < other.name ? -1 : 1))
    .flatMap(entry => {
      const path = join(directory, entry.name)
      return entry.isDirectory() ? filesBelow(path) : [path]
    })
}

function printTree(vault) {
  process.stdout.write(`\nThe files (bytes):\n${vault}\n`)
  let above = []
  for (const path of filesBelow(vault)) {
    const parts = relative(vault, path).split(/[\\/]/)
    let shared = 0
    while (shared < parts.length - 1 && above[shared] === parts[shared]) shared++
    for (let depth = shared; depth < parts.length; depth++) {
      const size = depth === parts.length - 1 ? `  ${statSync(path).size}` : '/'
      process.stdout.write(`${'  '.repeat(depth + 1)}${parts[depth]}${size}\n`)
    }
    above = parts
  }
}

/** A word as the shell of this system must see it. */
function quoted(word) {
  if (/^[\w./\\-]+$/.test(word)) return word
  return WINDOWS ? `"${word}"` : `'${word}'`
}

function printView(view, vault, hasJq) {
  const files = filesBelow(join(vault, 'raw', 'bitfinex', view.feed)).filter(path => path.endsWith('.jsonl'))
  process.stdout.write(`\n${view.title}:\n`)
  if (files.length === 0) {
    process.stdout.write(`(no ${view.feed} file was written)\n`)
    return false
  }
  const words = hasJq ? ['jq', ...view.jq] : ['node', '-e', READ_LINES + view.node]
  process.stdout.write(`$ ${[...words, ...files].map(quoted).join(' ')}\n`)
  const program = hasJq ? 'jq' : process.execPath
  const { status } = spawnSync(program, [...words.slice(1), ...files], { stdio: ['ignore', 'inherit', 'inherit'] })
  return status === 0
}

const vault = freshVault()
const code = await capture(vault, process.argv[2] ?? '30s')
if (code !== 0) process.stdout.write(`\nThe capture ended with exit code ${code}.\n`)
if (existsSync(vault)) {
  printTree(vault)
  const hasJq = spawnSync('jq', ['--version'], { stdio: 'ignore' }).status === 0
  if (!hasJq) process.stdout.write('\njq is not installed here, so node reads the files instead.\n')
  const shown = VIEWS.map(view => printView(view, vault, hasJq))
  process.stdout.write(`\n${vault} stays as it is; remove it when you have seen enough.\n`)
  process.exitCode = code === 0 && shown.every(Boolean) ? 0 : code || 1
} else process.exitCode = code || 1
