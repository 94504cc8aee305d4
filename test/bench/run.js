/**
 * `npm run bench [frames] [rounds]`: capture against floor over loopback, alternating; then rebuild, retention and one
 * snapshot of a deep book. Prints a table for the README. Linux only: CPU and memory are read from /proc.
 */
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { OrderBook } from '../../dist/book/orders.js'
import { seeded } from './frames.js'
import { median, start, usage } from './measure.js'

const FRAMES = Number(process.argv[2] ?? 200_000)
const ROUNDS = Number(process.argv[3] ?? 5)
const RATE = 20_000
const SETTLE_MS = 400
const BIN = 'bin/l3cap.js'
const CAPTURES = {
  bitfinex: ['--exchange', 'bitfinex', '--symbol', 'BTCUSD'],
  okx: ['--exchange', 'okx', '--symbol', 'BTC-USDT-SWAP']
}

const FRAMES_OF = { bitfinex: FRAMES, okx: FRAMES / 2 }

const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

/** Plays frames into one program; its CPU seconds and peak memory when the last one was taken. */
async function once(exchange, program, folder, frames) {
  const player = start(['test/bench/player.js', exchange, String(frames), String(RATE)])
  const [, port] = await player.line(/port (\d+)/)
  const urls = [`ws://127.0.0.1:${port}`, `http://127.0.0.1:${port}`]
  const capture = [BIN, 'run', ...CAPTURES[exchange], '--ws-url', urls[0], '--rest-url', urls[1]]
  const subject =
    program === 'floor'
      ? start(['test/bench/floor.js', urls[0], join(folder, 'floor.jsonl')])
      : start([...capture, '--vault', join(folder, 'vault'), '--log-dir', join(folder, 'logs')])
  await player.line(/done/)
  await pause(SETTLE_MS)
  const used = usage(subject.child.pid)
  subject.child.kill('SIGTERM')
  await subject.end
  player.child.disconnect()
  await player.end
  return used
}

async function inFolder(work) {
  const folder = mkdtempSync(join(tmpdir(), 'l3cap-bench-'))
  try {
    return await work(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function compare(exchange) {
  const rounds = { floor: [], capture: [] }
  const starts = { floor: [], capture: [] }
  const frames = FRAMES_OF[exchange]
  for (let round = 0; round < ROUNDS; round++) {
    for (const program of round % 2 ? ['floor', 'capture'] : ['capture', 'floor']) {
      // A playing of one frame is what starting costs: both programs are relieved of it.
      starts[program].push((await inFolder(folder => once(exchange, program, folder, 1))).cpuSeconds)
      rounds[program].push(await inFolder(folder => once(exchange, program, folder, frames)))
    }
  }
  const us = program =>
    median(rounds[program].map(({ cpuSeconds }, n) => ((cpuSeconds - starts[program][n]) / frames) * 1e6))
  const peak = program => median(rounds[program].map(r => r.peakMiB))
  const [floor, capture] = [us('floor'), us('capture')]
  const startOf = program => median(starts[program])
  console.log(
    `| ${exchange} | ${floor.toFixed(2)} µs | ${capture.toFixed(2)} µs | **${(capture / floor).toFixed(2)}×** | ${peak('floor').toFixed(0)} MiB | ` +
      `${peak('capture').toFixed(0)} MiB | **${(peak('capture') / peak('floor')).toFixed(2)}×** | ${startOf('floor').toFixed(2)} s, ${startOf('capture').toFixed(2)} s |`
  )
}

const sizeOf = folder =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0)

async function offline() {
  for (const exchange of ['bitfinex', 'okx']) {
    await inFolder(async folder => {
      await once(exchange, 'capture', folder, FRAMES_OF[exchange])
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
      console.log(`rebuild, ${exchange}: ${Math.round(median(rates)).toLocaleString('en')} lines of frames a second`)
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
        `retention, ${exchange}: ${(bytes / 1e6 / seconds).toFixed(0)} MB/s with verification (gzip 6), to ${((after / bytes) * 100).toFixed(1)} %`
      )
    })
  }
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

console.log(
  `${cpus()[0].model}, Node ${process.version}, ${FRAMES} frames (OKX half as many) at ${RATE}/s, medians of ${ROUNDS}`
)
console.log(
  '| frames | floor CPU | l3cap CPU | ratio | floor peak | l3cap peak | ratio | start-up CPU, floor and l3cap |'
)
console.log('|---|---|---|---|---|---|---|---|')
for (const exchange of ['bitfinex', 'okx']) await compare(exchange)
await offline()
deepBook()
