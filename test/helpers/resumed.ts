import { expect } from 'vitest'
import { Engine, STATE_VERSION } from '../../src/capture/engine.ts'
import type { FeedKind, Instrument, Level } from '../../src/core/instrument.ts'
import type { Exchange, FetchAnswer, Selection } from '../../src/exchanges/exchange.ts'
import { CONFIG, described, MemorySink, RecordedRequests, START_US } from './driver.ts'

/** What happens next on a connection: a frame, the answer to a REST request, or time with a tick at its end. */
export type Step = string | { id: string; answer: FetchAnswer } | { passMs: number }

/** What is played. */
export interface Scenario {
  readonly exchange: Exchange
  readonly selected: Level | Selection
  readonly instIds: readonly string[]
  readonly feeds: readonly FeedKind[]
  readonly steps: readonly Step[]
}

const STEP_US = 1000
const CONN = 'a'

class Player {
  readonly sink = new MemorySink()
  readonly requests = new RecordedRequests()
  readonly engine: Engine
  us = START_US
  frame = 1

  constructor(exchange: Exchange) {
    this.engine = new Engine(exchange, this.sink, this.requests)
  }

  run(steps: readonly Step[]): void {
    for (const step of steps) {
      this.us += typeof step === 'object' && 'passMs' in step ? step.passMs * 1000 : STEP_US
      this.frame++
      if (typeof step === 'string') {
        this.engine.read(CONN, step)
        this.engine.apply(this.us, CONN, this.frame)
      } else if ('id' in step) this.engine.fetched(this.us, CONN, this.frame, step.id, step.answer)
      else this.engine.tick(this.us, CONN, this.frame)
    }
  }

  /** What was asked for so far. */
  asked(): unknown[] {
    const { sent, fetches, hangups, replacements } = this.requests
    return [...sent, ...fetches.map(({ request }) => request), ...hangups, ...replacements]
  }
}

/**
 * Plays the steps; at each place a second engine that knows only the state there must write the same lines and ask for the
 * same things from there on. Gives what the whole run wrote.
 */
export function expectResumable({ exchange, selected, instIds, feeds, steps }: Scenario): MemorySink {
  const instruments: Instrument[] = described(exchange, instIds, selected)
  const detail = { v: STATE_VERSION, config: CONFIG, instruments, feeds, replaces: null }
  const opened = () => {
    const player = new Player(exchange)
    player.engine.open(player.us, CONN, player.frame, detail)
    return player
  }
  for (let at = 0; at <= steps.length; at++) {
    const whole = opened()
    whole.run(steps.slice(0, at))
    const subjects = whole.engine.subjectStates(instruments)
    const state = { ...detail, subjects, connection: whole.engine.connectionState(CONN) }
    const copy = JSON.parse(JSON.stringify(state)) as typeof state
    const [lines, asked] = [whole.sink.lines.length, whole.asked().length]
    const other = new Player(exchange)
    other.us = whole.us += STEP_US
    other.frame = ++whole.frame
    whole.engine.hour(whole.us, CONN, whole.frame)
    other.engine.hour(other.us, CONN, other.frame, copy)
    for (const player of [whole, other]) player.run(steps.slice(at))
    const where = `from the state before step ${at}: ${JSON.stringify(steps[at])}`
    const texts = (player: Player, from: number) => player.sink.lines.slice(from).map(({ text }) => text)
    expect(texts(other, 0), where).toEqual(texts(whole, lines))
    expect(other.asked().length, where).toBe(whole.asked().length - asked)
  }
  const whole = opened()
  whole.run(steps)
  return whole.sink
}
