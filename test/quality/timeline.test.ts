import { expect, test } from 'vitest'
import { type Span, Timeline } from '../../src/quality/timeline.ts'

type Step = [us: number, event: string, detail?: Record<string, unknown>]

/** Each span as `from-to state cause`, and how it stands at the end. */
function read(steps: readonly Step[], seen: readonly number[] = []): { spans: string[]; state: string } {
  const timeline = new Timeline()
  const spans: Span[] = []
  const marks = [...seen]
  for (const [us, event, detail = {}] of steps) {
    while (marks[0]! < us) timeline.seen(marks.shift()!)
    spans.push(...timeline.take(us, event, detail))
  }
  const text = spans.map(({ fromUs, toUs, state, cause }) => `${fromUs}-${toUs} ${state} ${cause}`.trim())
  return { spans: text, state: `${timeline.state} ${timeline.cause} since ${timeline.sinceUs}` }
}

const CASES: readonly { what: string; steps: Step[]; seen?: number[]; spans: string[]; state: string }[] = [
  {
    what: 'a run that ends cleanly',
    steps: [
      [10, 'started'],
      [12, 'connected', { conn: 'a' }],
      [20, 'synced'],
      [90, 'stopped', { reason: 'SIGTERM' }]
    ],
    spans: ['10-20 waiting start', '20-90 live'],
    state: 'off stopped since 90'
  },
  {
    what: 'a gap of the book, told with its cause',
    steps: [
      [10, 'started'],
      [20, 'synced'],
      [30, 'gap', { reason: 'sequence', cause: 'sequence' }],
      [35, 'synced']
    ],
    spans: ['10-20 waiting start', '20-30 live', '30-35 waiting sequence'],
    state: 'live  since 35'
  },
  {
    what: 'a gap of trades, which is none of the book',
    steps: [
      [10, 'started'],
      [20, 'synced'],
      [30, 'gap', { channel: 'trades', cause: 'trades' }]
    ],
    spans: ['10-20 waiting start'],
    state: 'live  since 20'
  },
  {
    what: 'a planned change of connection, and an image anew',
    steps: [
      [10, 'started'],
      [20, 'synced'],
      [30, 'synced', { planned: true }],
      [40, 'synced']
    ],
    spans: ['10-20 waiting start'],
    state: 'live  since 20'
  },
  {
    what: 'a process that was killed, by its last data',
    steps: [
      [10, 'started'],
      [20, 'synced'],
      [90, 'started'],
      [95, 'synced']
    ],
    seen: [25, 60],
    spans: ['10-20 waiting start', '20-60 live', '60-90 off killed', '90-95 waiting start'],
    state: 'live  since 95'
  },
  {
    what: 'a process that was killed while it waited',
    steps: [
      [10, 'started'],
      [20, 'synced'],
      [30, 'gap', { cause: 'disconnect' }],
      [90, 'started']
    ],
    seen: [40],
    spans: ['10-20 waiting start', '20-30 live', '30-40 waiting disconnect', '40-90 off killed'],
    state: 'waiting start since 90'
  },
  {
    what: 'a process that was killed, without any data',
    steps: [
      [10, 'started'],
      [20, 'synced'],
      [90, 'started']
    ],
    spans: ['10-20 waiting start', '20-90 off killed'],
    state: 'waiting start since 90'
  },
  {
    what: 'a stop and a start',
    steps: [
      [10, 'started'],
      [20, 'synced'],
      [30, 'stopped'],
      [50, 'started'],
      [55, 'synced']
    ],
    spans: ['10-20 waiting start', '20-30 live', '30-50 off stopped', '50-55 waiting start'],
    state: 'live  since 55'
  },
  {
    what: 'a book that was refused at the start, and later',
    steps: [
      [10, 'started'],
      [12, 'refused', { channel: 'book' }],
      [20, 'synced'],
      [30, 'gap', { cause: 'silence' }],
      [31, 'refused', { channel: 'book' }]
    ],
    spans: ['10-20 waiting refused', '20-30 live'],
    state: 'waiting silence since 30'
  },
  {
    what: 'trades that were refused',
    steps: [
      [10, 'started'],
      [12, 'refused', { channel: 'trades' }]
    ],
    spans: [],
    state: 'waiting start since 10'
  },
  {
    what: 'records that begin in the middle: a gap',
    steps: [
      [10, 'gap', { cause: 'sequence' }],
      [15, 'synced', { down_ms: 0 }]
    ],
    spans: ['10-15 waiting sequence'],
    state: 'live  since 15'
  },
  {
    what: 'records that begin in the middle of a gap',
    steps: [[50_000, 'synced', { down_ms: 20 }]],
    spans: ['30000-50000 waiting unknown'],
    state: 'live  since 50000'
  },
  {
    what: 'records that begin with the next process, after data of a killed one',
    steps: [
      [90, 'started'],
      [95, 'synced']
    ],
    seen: [60],
    spans: ['60-90 off killed', '90-95 waiting start'],
    state: 'live  since 95'
  },
  {
    what: 'records that begin with a planned change',
    steps: [
      [50, 'synced', { planned: true }],
      [60, 'stopped']
    ],
    spans: ['50-60 live'],
    state: 'off stopped since 60'
  },
  {
    what: 'everything that is no change of state',
    steps: [
      'stalled',
      'disconnected',
      'resubscribed',
      'maintenance',
      'clock_step',
      'writer_paused',
      'checksum_mismatch'
    ].map((event, at): Step => [at, event, { conn: 'a' }]),
    spans: [],
    state: 'unknown  since NaN'
  }
]

for (const { what, steps, seen, spans, state } of CASES) {
  test(what, () => expect(read(steps, seen)).toEqual({ spans, state }))
}

test('the span that is not over is told as far as a moment', () => {
  const timeline = new Timeline()
  expect(timeline.until(5)).toBeUndefined()
  timeline.take(10, 'started', {})
  expect(timeline.until(10)).toBeUndefined()
  expect(timeline.until(17)).toEqual({ fromUs: 10, toUs: 17, state: 'waiting', cause: 'start' })
})
