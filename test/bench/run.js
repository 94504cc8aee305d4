/**
 * `npm run bench [frames] [rounds] [name…]`: capture against floor over loopback, alternating, for every row of rows.js; then
 * rebuild, retention and one snapshot of a deep book. Names choose: rows, exchanges, `offline`, `snapshot`. Prints a table
 * for the README. Ends with an error when a capture did not take what was played to it. Linux only: CPU and memory are
 * read from /proc.
 */
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { OrderBook } from '../../dist/book/orders.js'
import { seeded } from './frames.js'
import { median, start, usage } from './measure.js'
import { ROWS } from './rows.js'
import { verifyVault } from './verify.js'

const FRAMES = Number(process.argv[2] ?? 200_000)
const ROUNDS = Number(process.argv[3] ?? 5)
const NAMES = process.argv.slice(4)
const RATE = 20_000
const BIN = 'bin/l3cap.js'
/** Rows that are rebuilt and compressed, too. */
const OFFLINE = ['bitfinex-l3', 'okx-l2']

const isChosen = name => NAMES.length === 0 || NAMES.some(each => name === each || name.startsWith(`${each}-`))
const exchangeOf = name => name.split('-')[0]
const framesOf = name => Math.ceil(FRAMES * (ROWS[name].share ?? 1))
const rateOf = name => ROWS[name].rate ?? RATE * (ROWS[name].share ?? 1)

/** Plays frames into one program; its CPU seconds and peak memory when the last one was taken, and the bytes of a frame. */
async function once(name, program, folder, frames) {
  const children = []
  const run = (...args) => {
    const started = start(...args)
    children.push(started.child)
    return started
  }
  try {
    const player = run(['test/bench/player.js', name, String(frames), String(rateOf(name))])
    const [, port] = await player.line(/port (\d+)/)
    const subject =
      program === 'floor'
        ? run(['test/bench/floor.js', `ws://127.0.0.1:${port}/floor`, join(folder, 'floor.jsonl')])
        : run(...captureOf(name, port, folder))
    const ended = subject.end.then(code => {
      throw new Error(`${name}: ${program} ended with ${code}\n${subject.output().slice(-3000)}`)
    })
    const limitMs = 60_000 + (4000 * frames) / rateOf(name)
    const done = await Promise.race([player.line(/done (\d+) (\d+) (\d+)/, limitMs), ended]).catch(error => {
      throw new Error(`${error.message}\n${subject.output().slice(-3000)}`)
    })
    ended.catch(() => undefined)
    const used = usage(subject.child.pid)
    const [sent, records, bytes] = done.slice(1).map(Number)
    subject.child.kill('SIGTERM')
    const code = await subject.end
    player.child.disconnect()
    await player.end
    if (code !== 0) throw new Error(`${name}: ${program} ended with ${code}\n${subject.output().slice(-3000)}`)
    if (program === 'capture') verifyVault(join(folder, 'vault'), exchangeOf(name), { sent, records })
    else if (!subject.output().includes(`parsed ${frames}\n`))
      throw new Error(`${name}: ${subject.output()} of ${frames}`)
    return { ...used, bytes }
  } finally {
    for (const child of children) if (child.exitCode === null) child.kill('SIGKILL')
  }
}

/** How a capture of a row is started. */
function captureOf(name, port, folder) {
  const { args, env } = ROWS[name]
  const urls = ['--ws-url', `ws://127.0.0.1:${port}`, '--rest-url', `http://127.0.0.1:${port}`]
  const places = ['--vault', join(folder, 'vault'), '--log-dir', join(folder, 'logs')]
  return [[BIN, 'run', ...args, ...urls, ...places], { env: { ...process.env, ...env } }]
}

async function inFolder(work) {
  const folder = mkdtempSync(join(tmpdir(), 'l3cap-bench-'))
  try {
    return await work(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function compare(name) {
  const rounds = { floor: [], capture: [] }
  const starts = { floor: [], capture: [] }
  const frames = framesOf(name)
  for (let round = 0; round < ROUNDS; round++) {
    for (const program of round % 2 ? ['floor', 'capture'] : ['capture', 'floor']) {
      // A playing of one frame is what starting costs: both programs are relieved of it.
      starts[program].push((await inFolder(folder => once(name, program, folder, 1))).cpuSeconds)
      rounds[program].push(await inFolder(folder => once(name, program, folder, frames)))
    }
  }
  const us = program =>
    median(rounds[program].map(({ cpuSeconds }, n) => ((cpuSeconds - starts[program][n]) / frames) * 1e6))
  const peak = program => median(rounds[program].map(r => r.peakMiB))
  const [floor, capture] = [us('floor'), us('capture')]
  const startOf = program => median(starts[program])
  const what = `${ROWS[name].title}, ${frames.toLocaleString('en')} of ${rounds.floor[0].bytes} bytes`
  console.log(
    `| ${what} | ${floor.toFixed(2)} µs | ${capture.toFixed(2)} µs | **${(capture / floor).toFixed(2)}×** | ${peak('floor').toFixed(0)} MiB | ` +
      `${peak('capture').toFixed(0)} MiB | **${(peak('capture') / peak('floor')).toFixed(2)}×** | ${startOf('floor').toFixed(2)} s, ${startOf('capture').toFixed(2)} s |`
  )
}

const sizeOf = folder =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0)

async function offline(name) {
  const { title } = ROWS[name]
  await inFolder(async folder => {
    await once(name, 'capture', folder, framesOf(name))
    const rates = []
    for (let round = 0; round < ROUNDS; round++) {
      const child = start([
        BIN,
        'rebuild',
        '--vault',
        join(folder, 'vault'),
        '--out',
        join(folder, `again-${round}`),
        '--json'
      ])
      const [text] = await child.line(/\{.*\}/)
      await child.end
      const { frames, seconds } = JSON.parse(text)
      rates.push(frames / seconds)
    }
    console.log(`rebuild, ${title}: ${Math.round(median(rates)).toLocaleString('en')} lines of frames a second`)
    const hours = join(folder, 'vault')
    const bytes = sizeOf(join(hours, 'raw'))
    // Seven hours from now on the hour is due; the age is counted by a clock, which the child gets shifted.
    const began = performance.now()
    const child = start([BIN, 'retention', '--vault', hours, '--compress-after', '10m'], {
      env: { ...process.env, CLOCK_SHIFT_MS: '25200000', NODE_OPTIONS: '--import ./test/faults/shifted-clock.js' }
    })
    await child.end
    const seconds = (performance.now() - began) / 1000
    const after = sizeOf(join(hours, 'raw'))
    console.log(
      `retention, ${title}: ${(bytes / 1e6 / seconds).toFixed(0)} MB/s with verification (gzip 6), to ${((after / bytes) * 100).toFixed(1)} %`
    )
  })
}

function deepBook() {
  const random = seeded(3)
  const book = new OrderBook()
  for (let id = 0; id < 50_000; id++) {
    const isAsk = id % 2 === 1
    const ticks = Math.floor(random() * 20_000)
    book.set(`order-${id}`, isAsk, (60_000 + (isAsk ? ticks + 1 : -ticks) / 10).toFixed(1), (random() * 3).toFixed(8))
  }
  const times = []
  for (let round = 0; round < 201; round++) {
    const began = performance.now()
    const length = book.top(false, 400).length + book.top(true, 400).length + book.stats().length
    times.push(performance.now() - began)
    if (length < 1000) throw new Error('an empty snapshot')
  }
  console.log(
    `snapshot, top 400 of 50,000 orders: ${median(times).toFixed(2)} ms (worst of 201: ${Math.max(...times).toFixed(2)} ms)`
  )
}

const unknown = NAMES.filter(
  name =>
    !['offline', 'snapshot'].includes(name) &&
    !Object.keys(ROWS).some(row => row === name || row.startsWith(`${name}-`))
)
if (!(FRAMES >= 1) || !(ROUNDS >= 1) || unknown.length > 0) {
  console.error(
    `npm run bench [frames] [rounds] [name…]; names: ${Object.keys(ROWS).join(', ')}, offline, snapshot; or an exchange`
  )
  process.exit(2)
}
console.log(
  `${cpus()[0].model}, Node ${process.version}, ${FRAMES} frames (fewer where they have many levels) at ${RATE}/s, medians of ${ROUNDS}`
)
console.log(
  '| frames | floor CPU | l3cap CPU | ratio | floor peak | l3cap peak | ratio | start-up CPU, floor and l3cap |'
)
console.log('|---|---|---|---|---|---|---|---|')
for (const name of Object.keys(ROWS).filter(isChosen)) await compare(name)
if (isChosen('offline')) for (const name of OFFLINE) await offline(name)
if (isChosen('snapshot')) deepBook()
