import { describe, expect, it } from 'vitest'
import { parseEventLine, readEventLine } from '../../src/book/event-line.ts'
import { LineMaker, type OrderEventType } from '../../src/capture/lines.ts'
import type { EventRecord } from '../../src/core/records.ts'

const US = 1_702_567_846_001_123
const KEYS = ['event_type', 'order_id', 'side', 'price', 'size', 'sequence', 'exchange_time', 'conn', 'frame', 'last']
const MAKER = new LineMaker(
  { exchange: 'kraken', instId: 'BTC/USD', market: 'spot', level: 'l3', channel: 'level3' },
  400
)
const SOURCE = '"conn":"kraken-1","frame":18'

function lines(): string[] {
  const types: OrderEventType[] = ['snapshot', 'open', 'change', 'match', 'done']
  const note = { isAsk: null, price: null, size: null, sequence: 9, exchangeTime: null, metadata: '{"a":[1]}' }
  return [
    ...types.map((type, n) =>
      MAKER.order(US, type, `O-${n}`, n % 2 === 0, '91018', '1e-7', n === 0 ? null : n, US / 1000, SOURCE, n > 2, '{}')
    ),
    MAKER.order(US, 'open', '7', true, '1', '2', 0, '2023-12-14T15:30:45.123456789Z', SOURCE, true, '{"id":"x"}'),
    MAKER.note(US, { type: 'received', id: 'u', ...note }, SOURCE, true),
    MAKER.orderMark(US, 'clear', SOURCE, false, '{"reason":"hour"}'),
    MAKER.orderMark(US, 'gap', SOURCE, true, '{"reason":"sequence","expected":1,"received":2}')
  ].map(line => line.slice(0, -1))
}

/** What JSON says of a line, in the form of what the reader gives. */
function parsed(line: string): Record<string, unknown> {
  const record = JSON.parse(line) as EventRecord
  return { ...pick({ ...record }), recv_us: record.recv_us, metadata: JSON.stringify(record.metadata) }
}

function pick(record: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(KEYS.map(key => [key, record[key]]))
}

describe('a line of an event', () => {
  it.each(lines().map(line => [JSON.parse(line).event_type as string, line]))(
    '%s is read as JSON has it',
    (_, line) => {
      expect(readEventLine(line)).toMatchObject(parsed(line))
      expect(parseEventLine(line)).toMatchObject(parsed(line))
    }
  )

  it('is never read as something else when a character is missing, doubled or another', () => {
    let read = 0
    for (const line of lines()) {
      for (let at = 0; at < line.length; at++) {
        const [before, after] = [line.slice(0, at), line.slice(at + 1)]
        for (const changed of [before + after, before + line[at] + line[at] + after, `${before}7${after}`]) {
          const found = readEventLine(changed)
          if (found === undefined) continue
          read++
          // What an object of the exchange's own holds is not looked into.
          const isWithin = at >= line.indexOf('"metadata"')
          const want = isWithin ? undefined : parsed(changed)
          if (want !== undefined) expect({ ...found, line: changed }).toMatchObject(want)
        }
      }
    }
    expect(read).toBeGreaterThan(1000)
  })

  it('in another layout is left to the slow way', () => {
    const spaced = JSON.stringify(JSON.parse(lines()[0]!), null, 1).replaceAll('\n', '')
    expect(readEventLine(spaced)).toBeUndefined()
    expect(parseEventLine(spaced)).toMatchObject(parsed(spaced))
    const escaped = lines()[5]!.replace('"x"', '"\\"x"')
    expect(readEventLine(escaped)).toBeUndefined()
    expect(parseEventLine(escaped)).toMatchObject(parsed(escaped))
  })

  it.each(['', '{', 'null', '[]', '{"recv_us":1}', '{"timestamp_utc":"2023-12-14T15:30:46.001Z","recv_us":1}'])(
    'is not %s',
    text => {
      expect(readEventLine(text)).toBeUndefined()
      expect(parseEventLine(text)).toBeUndefined()
    }
  )
})
