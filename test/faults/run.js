// Long runs of the fault tests: npm run faults -- [--seed N] [--runs M] [--only kind] [--jobs N] [--minutes N]
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const FOLDER = fileURLToPath(new URL('.', import.meta.url))
/** Kinds that live in a file of another name; any other kind is the file `<kind>.test.ts`. */
const HOME = { power: 'kills', steps: 'kills', signals: 'kills', pause: 'kills', writers: 'kills', state: 'kills' }
const USAGE = `npm run faults -- [--seed N] [--runs M] [--only KIND[,KIND]] [--jobs N] [--minutes N (soak)]
kinds: kills, power, calls, chaos, oracle, and every other <kind>.test.ts in test/faults`

function read() {
  try {
    const options = {
      seed: { type: 'string' },
      runs: { type: 'string' },
      only: { type: 'string' },
      jobs: { type: 'string' },
      minutes: { type: 'string' }
    }
    const { values } = parseArgs({ options: { ...options, help: { type: 'boolean' } } })
    for (const name of ['seed', 'runs', 'jobs', 'minutes']) {
      if (values[name] !== undefined && !/^\d+$/.test(values[name])) throw new Error(`--${name} must be a whole number`)
    }
    return values
  } catch (error) {
    return { mistake: error.message }
  }
}

const wanted = read()
if (wanted.help || wanted.mistake) {
  process.stdout.write(`${wanted.mistake ? `${wanted.mistake}\n` : ''}${USAGE}\n`)
  process.exit(wanted.mistake ? 2 : 0)
}
const kinds = wanted.only?.split(',') ?? ['kills', 'power', 'calls', 'chaos']
const files = [...new Set(kinds.map(kind => `${HOME[kind] ?? kind}.test.ts`))]
for (const file of files) {
  if (existsSync(join(FOLDER, file))) continue
  const known = readdirSync(FOLDER).flatMap(name => (name.endsWith('.test.ts') ? [name.slice(0, -8)] : []))
  process.stdout.write(`--only: there is no ${file}; kinds: ${[...known, ...Object.keys(HOME)].join(', ')}\n`)
  process.exit(2)
}

const folder = mkdtempSync(join(tmpdir(), 'l3cap-figures-'))
const report = join(folder, 'report.jsonl')
const env = { ...process.env, L3CAP_FAULT_REPORT: report, L3CAP_FAULT_LONG: '1' }
if (wanted.only !== undefined) env.L3CAP_FAULT_ONLY = wanted.only
if (wanted.seed !== undefined) env.L3CAP_FAULT_SEED = wanted.seed
if (wanted.minutes !== undefined) env.L3CAP_FAULT_MINUTES = wanted.minutes
if (wanted.runs !== undefined) env.L3CAP_FAULT_RUNS = wanted.runs
const HOURS_MS = String(12 * 3_600_000)
const words = [
  join(dirname(createRequire(import.meta.url).resolve('vitest/package.json')), 'vitest.mjs'),
  'run',
  '--config',
  'test/vitest.config.ts',
  '--testTimeout',
  HOURS_MS,
  '--hookTimeout',
  HOURS_MS
]
words.push('--maxConcurrency', wanted.jobs ?? process.env.L3CAP_FAULT_JOBS ?? '2')
const paths = files.map(file => `test/faults/${file}`)
const child = spawn(process.execPath, [...words, ...paths], { stdio: 'inherit', env })
process.on('SIGINT', () => {}) // A terminal sends it to the child as well.
child.on('exit', code => {
  const runs = existsSync(report) ? readFileSync(report, 'utf8').trim().split('\n').filter(Boolean).map(JSON.parse) : []
  const sum = name => runs.reduce((total, run) => total + run[name], 0)
  const worst = name => runs.reduce((most, run) => Math.max(most, run[name]), 0)
  process.stdout.write(
    `${runs.length} runs: ${sum('deaths')} deaths, ${sum('frames')} frames and ${sum('snapshots')} snapshots judged, ` +
      `${sum('skipped')} frames skipped, ${sum('lost')} lost, worst loss ${Math.round(worst('lossMs'))} ms, ` +
      `${sum('findings')} findings\n`
  )
  rmSync(folder, { recursive: true, force: true })
  process.exit(code ?? 1)
})
