import { Command } from 'commander'
import { L3capError, messageOf } from '../core/errors.ts'
import { parseDuration } from '../core/time.ts'
import { FAULT_KINDS, type Fault, type FaultKind, parseFault } from '../simulator/faults.ts'
import {
  isInstrumentName,
  listedInstruments,
  SIMULATED_EXCHANGES,
  type SimulatedExchange
} from '../simulator/listing.ts'
import type { SimulatorOptions } from '../simulator/simulator.ts'

/** The options as commander hands them over: text, not yet judged. */
interface Given {
  readonly exchange?: string
  readonly port: string
  readonly symbol?: string[]
  readonly seed: string
  readonly rate: string
  readonly fault?: string[]
  readonly duration?: string
}

const RATE_MAX = 10_000
/** The longest time a timer can wait. */
const DURATION_MS_MAX = 2 ** 31 - 1

/**
 * The command `simulate`: serves a simulated exchange on 127.0.0.1 until SIGINT, SIGTERM or `--duration`. Its action throws
 * an `L3capError` `USAGE` that lists every mistake of the options, before anything is started.
 */
export function simulateCommand(): Command {
  return new Command('simulate')
    .description('serve a simulated exchange on loopback, speaking the real wire protocol, for trying and testing')
    .option(
      '--exchange <id>',
      `the exchange to play: ${SIMULATED_EXCHANGES.join(', ')} (default: none, it must be given)`
    )
    .option('--port <n>', 'the port on 127.0.0.1; 0 takes a free one', '0')
    .option(
      '--symbol <name...>',
      'instruments besides the usual ones, repeated or with commas (default: only the usual ones)'
    )
    .option('--seed <n>', 'the same seed gives the same markets', '1')
    .option('--rate <n>', 'events per second and instrument, on average', '20')
    .option('--fault <spec...>', `what goes wrong, as KIND[@WHEN][:DETAIL][/INSTRUMENT], repeated (default: nothing)`)
    .option('--duration <d>', 'stop after this time, such as 30s or 5m (default: until stopped)')
    .addHelpText('after', helpOnFaults())
    .action(async (given: Given) => {
      // Loaded only here: the other commands need not carry it.
      const { simulatorFaultKinds } = await import('../simulator/simulator.ts')
      const { options, durationMs } = readGiven(given, simulatorFaultKinds)
      await serve(options, durationMs)
    })
}

function helpOnFaults(): string {
  return `
Faults: ${FAULT_KINDS.join(', ')}
  drop@5s                       the next book update after 5 s is lost
  corrupt-checksum@12s/BTCUSD   the next checksum of BTCUSD after 12 s is wrong
  mute@10s:20s                  silence from 10 s on, for 20 s (default: 10s)
  close@30s:1012                close code 1012 at 30 s (default: 1006, no close frame)
  maintenance@40s:15s           maintenance at 40 s, for 15 s
  restart-notice@60s            the restart is announced at 60 s, and follows
  rest-error@5s:429             the next REST request for a book image after 5 s gets status 429 (default: 500)
  stale-image@5s                the next image asked for after 5 s is an old one
  refuse@5s, silent-ack@5s      the next book subscription after 5 s is refused, or acknowledged and left in silence
  drop-trade@5s                 the next frame of trades after 5 s is lost
Not every exchange knows every fault.`
}

/** Judges the options. Throws `USAGE` with all mistakes in one sentence. */
function readGiven(
  given: Given,
  kindsOf: (exchange: SimulatedExchange) => readonly FaultKind[]
): { options: SimulatorOptions; durationMs: number | undefined } {
  const mistakes: string[] = []
  const exchange = SIMULATED_EXCHANGES.find(name => name === given.exchange)
  if (!exchange) {
    const asked = given.exchange === undefined ? 'is missing' : `'${given.exchange}' cannot be simulated`
    mistakes.push(`--exchange ${asked}: it is one of ${SIMULATED_EXCHANGES.join(', ')}`)
  }
  const port = readWhole('--port', given.port, 65_535, mistakes)
  const seed = readWhole('--seed', given.seed, 2 ** 32 - 1, mistakes)
  const eventsPerSecond = readWhole('--rate', given.rate, RATE_MAX, mistakes)
  const instruments = exchange ? readSymbols(exchange, given.symbol ?? [], mistakes) : []
  const listed = exchange ? listedInstruments(exchange, instruments) : undefined
  const faults = readFaults(given.fault ?? [], exchange ? kindsOf(exchange) : FAULT_KINDS, listed, mistakes)
  const durationMs = given.duration === undefined ? undefined : parseDuration(given.duration)
  const isDurationWrong = durationMs === undefined || durationMs <= 0 || durationMs > DURATION_MS_MAX
  if (given.duration !== undefined && isDurationWrong) {
    mistakes.push(`--duration '${given.duration}' is not a duration such as 500ms, 30s, 5m or 6h, of at most 24d`)
  }
  if (!exchange || mistakes.length > 0) throw new L3capError('USAGE', mistakes.join('; '))
  return { options: { exchange, port, seed, eventsPerSecond, instruments, faults }, durationMs }
}

function readWhole(name: string, text: string, most: number, mistakes: string[]): number {
  const value = /^\d{1,10}$/.test(text) ? Number.parseInt(text, 10) : -1
  if (value >= 0 && value <= most) return value
  mistakes.push(`${name} '${text}' is not a whole number from 0 to ${most}`)
  return 0
}

function readSymbols(exchange: SimulatedExchange, given: readonly string[], mistakes: string[]): string[] {
  const names = given.flatMap(text => text.split(',')).map(text => text.trim())
  return names.filter(Boolean).map(name => {
    // Bitfinex's own requests write a `t` before the pair.
    const bare = exchange === 'bitfinex' ? name.replace(/^t(?=[A-Z0-9])/, '') : name
    if (!isInstrumentName(exchange, bare))
      mistakes.push(`--symbol '${name}' is not written as ${exchange} writes its instruments`)
    return bare
  })
}

function readFaults(
  given: readonly string[],
  kinds: readonly FaultKind[],
  listed: readonly string[] | undefined,
  mistakes: string[]
): Fault[] {
  const faults: Fault[] = []
  for (const text of given) {
    const fault = parseFault(text)
    if (!fault) {
      mistakes.push(`--fault '${text}' is not KIND[@WHEN][:DETAIL][/INSTRUMENT] with one of ${FAULT_KINDS.join(', ')}`)
    } else if (!kinds.includes(fault.kind)) {
      mistakes.push(`--fault '${text}' means nothing on this exchange, which knows ${kinds.join(', ')}`)
    } else if (fault.instrument !== undefined && listed && !listed.includes(fault.instrument)) {
      mistakes.push(`--fault '${text}' names an instrument that is not simulated: ${listed.join(', ')}`)
    } else {
      faults.push(fault)
    }
  }
  return faults
}

async function serve(options: SimulatorOptions, durationMs: number | undefined): Promise<void> {
  const stopped = waitForEnd(durationMs)
  try {
    const { startSimulator } = await import('../simulator/simulator.ts')
    const simulator = await startSimulator(options).catch((error: unknown) => {
      throw new L3capError('USAGE', `--port ${options.port} cannot be had: ${messageOf(error)}`, { cause: error })
    })
    const { wsUrl, restUrl } = simulator
    const symbol = options.instruments?.[0] ?? listedInstruments(options.exchange, [])[0]
    process.stdout.write(
      `simulated ${options.exchange}\n  ws    ${wsUrl}\n  rest  ${restUrl}\ntry:\n` +
        `  l3cap run --exchange ${options.exchange} --symbol ${symbol} --ws-url ${wsUrl} --rest-url ${restUrl} --vault ./vault-simulated\n`
    )
    await stopped.promise
    await simulator.close()
  } finally {
    stopped.forget()
  }
}

/** Waits for a signal or the end of the time. A second signal finds no listener any more and ends the process at once. */
function waitForEnd(durationMs: number | undefined): { promise: Promise<void>; forget: () => void } {
  let timer: NodeJS.Timeout | undefined
  let end = (): void => undefined
  const promise = new Promise<void>(resolve => {
    end = resolve
  })
  const forget = (): void => {
    clearTimeout(timer)
    process.off('SIGINT', stop)
    process.off('SIGTERM', stop)
  }
  const stop = (): void => {
    forget()
    end()
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  if (durationMs !== undefined) timer = setTimeout(stop, durationMs)
  return { promise, forget }
}
