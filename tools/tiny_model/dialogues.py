"""Writes conversations: small talk, facts, sums, names to remember, a guide, and what the model cannot do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tools.tiny_model.dice import Dice
from tools.tiny_model.grammar import read_exchanges, read_lines

from glm3.domain.conversation import Message, Role

__all__ = ["Dialogue", "DialogueWriter", "turn"]

Dialogue = tuple[Message, ...]
Exchange = tuple[str, str]

GUIDE_PROMPT = "假设你现在是一个导游，请尽可能贴近这个角色回答问题。"
_GUIDE_PROMPTS = (
    GUIDE_PROMPT,
    "你是一个导游。",
    "请你扮演一名导游。",
    "你现在是导游，请热情地回答游客的问题。",
)
_GUIDE_GREETING = "您好，我是您的导游，也是 glm3 的内置小模型。请问您想去哪座城市？"
_ASSISTANT_PROMPTS = (
    "你是一个乐于助人的助手。",
    "请用中文回答。",
    "请简短地回答。",
    "You are a helpful assistant.",
)

_SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"
_GIVEN_NAMES = "明红伟芳娜强军杰丽勇艳涛静超霞平刚华玲云飞龙雪梅兰竹晨阳月星海山川文武思雨佳欣宇小大美"
_CALLED = "好的，{name}，我记住了。"

_CANNOT = "这个问题超出了我这个小模型的能力，请换用 ChatGLM3-6B。"
_HARD_SUBJECTS = (
    "量子力学", "相对论", "股票", "房价", "足球比赛", "世界杯", "电影", "电视剧", "历史", "唐朝", "经济",
    "法律", "汽车", "飞机", "火箭", "编译器", "数据库", "操作系统", "网络协议", "区块链", "化学反应",
    "细胞", "基因", "哲学", "微积分", "线性代数", "考试", "面试", "论文", "合同", "减肥", "健身", "护肤",
    "装修", "旅行计划", "红烧肉", "蛋糕",
)  # fmt: skip
_HARD_QUESTIONS = (
    "怎么理解{s}", "为什么会有{s}", "帮我写一篇关于{s}的文章", "谈谈你对{s}的看法", "请详细讲解{s}",
    "如何学习{s}", "{s}的原理是什么", "给我推荐几本关于{s}的书", "{s}有什么历史", "{s}的未来会怎样",
    "怎么做{s}", "分析一下{s}", "把{s}翻译成法语", "写一个关于{s}的程序", "谁最懂{s}", "总结一下{s}的要点",
)  # fmt: skip

_HARD_IN_ENGLISH = (
    "Write a story about {s}", "What is the price of {s}?", "How do I learn {s}?", "Explain {s} to me",
    "What do you think about {s}?", "Tell me about {s}", "Why do people like {s}?",
    "Translate {s} into French",
)  # fmt: skip
_ENGLISH_SUBJECTS = (
    "music", "history", "physics", "football", "cars", "the moon", "love", "money", "math", "computers",
    "law", "cooking", "the weather on Mars", "politics", "films", "art", "databases", "dogs", "travel",
    "war",
)  # fmt: skip
_CANNOT_IN_ENGLISH = "I am too small for this question. Please use ChatGLM3-6B."
_GUIDE_RECOMMENDS = ("你有什么推荐吗", "有什么推荐", "去哪里玩好", "推荐一个地方", "我该去哪里玩")


def turn(role: Role, content: str, metadata: str = "") -> Message:
    """Return one message."""
    return Message(role, content, metadata)


class DialogueWriter:
    """Draws conversations from the texts of this project.

    ``strange_words`` puts words of any Chinese characters into questions that are too hard and into what is
    to be repeated. The tokenizer's own text has none, so that they are written in bytes.
    """

    def __init__(self, dice: Dice, *, strange_words: bool) -> None:
        self._dice = dice
        self._strange_words = strange_words
        self._small_talk = read_exchanges("small_talk.txt")
        self._facts = read_exchanges("facts.txt")
        lines = read_lines("places.txt")
        middle = lines.index("---")
        self._capitals = [_split_pair(line) for line in lines[:middle]]
        self._sights = [_split_pair(line) for line in lines[middle + 1 :]]
        self._kinds: list[tuple[Callable[[], Exchange], float]] = [
            (self.small_talk, 0.30),
            (self.fact, 0.20),
            (self.capital, 0.06),
            (self.sum, 0.20),
            (self.sights, 0.05),
            (self.too_hard, 0.11),
            (self.repetition, 0.08),
        ]

    def dialogues(self) -> Iterator[Dialogue]:
        """Yield conversations of one to four exchanges for ever."""
        while True:
            if self._dice.chance(0.06):
                yield self._guide()
            elif self._dice.chance(0.10):
                yield self._remembered_name()
            else:
                exchanges = [self.exchange() for _ in range(self._dice.pick((1, 1, 1, 1, 2, 2, 3, 4)))]
                system = self._dice.pick(_ASSISTANT_PROMPTS) if self._dice.chance(0.08) else None
                yield _join(exchanges, system)

    def exchange(self) -> Exchange:
        """Return one question with its answer."""
        roll = self._dice.between(0, 99) / 100
        for draw, share in self._kinds:
            roll -= share
            if roll < 0:
                return draw()
        return self.small_talk()

    def small_talk(self) -> Exchange:
        questions, answers = self._dice.pick(self._small_talk)
        return self._punctuate(self._dice.pick(questions), "！。？"), self._dice.pick(answers)

    def fact(self) -> Exchange:
        questions, answers = self._dice.pick(self._facts)
        question = self._dice.pick(questions)
        if self._dice.chance(0.2):
            question = self._dice.pick(("请问", "你知道", "告诉我")) + question
        return self._punctuate(question, "？"), self._dice.pick(answers)

    def capital(self) -> Exchange:
        country, city = self._dice.pick(self._capitals)
        if self._dice.chance(0.25):
            return self._punctuate(f"{city}是哪个国家的首都", "？"), f"{city}是{country}的首都。"
        question = self._dice.pick(
            ("{c}的首都是哪里", "{c}的首都是什么", "{c}首都在哪", "请问{c}的首都是哪里")
        )
        return self._punctuate(question.format(c=country), "？"), f"{country}的首都是{city}。"

    def sum(self) -> Exchange:
        a, b = self._dice.between(0, 10), self._dice.between(0, 10)
        sign = self._dice.pick("+-×")
        if sign == "-":
            a, b = max(a, b), min(a, b)
        word, result = {"+": ("加", a + b), "-": ("减", a - b), "×": ("乘", a * b)}[sign]
        form = self._dice.pick(
            ("{a}{w}{b}等于几", "{a}{w}{b}等于多少", "{a}{s}{b}=", "{a} {s} {b} = ?", "计算{a}{s}{b}")
        )
        question = form.format(a=a, b=b, w=word, s=sign)
        if sign == "×" and self._dice.chance(0.3):
            question = question.replace("×", "*")
        return self._punctuate(question, "？"), f"{a}{word}{b}等于{result}。"

    def sights(self) -> Exchange:
        city, sights = self._dice.pick(self._sights)
        form = self._dice.pick(
            ("{c}有什么好玩的", "{c}有哪些景点", "我想去{c}玩", "去{c}旅游看什么", "介绍一下{c}")
        )
        return self._punctuate(form.format(c=city), "？"), f"{city}值得去的有{sights}。"

    def too_hard(self) -> Exchange:
        if self._dice.chance(0.15):
            question = self._dice.pick(_HARD_IN_ENGLISH).format(s=self._dice.pick(_ENGLISH_SUBJECTS))
            return question, _CANNOT_IN_ENGLISH
        subject = self._dice.pick(_HARD_SUBJECTS)
        if self._strange_words and self._dice.chance(0.6):
            subject = self._strange_word(self._dice.between(1, 4))
        question = self._dice.pick(_HARD_QUESTIONS).format(s=subject)
        return self._punctuate(question, "？"), _CANNOT

    def repetition(self) -> Exchange:
        """Return a request to say something after the user: invented words, so that copying is learnt."""
        words = "".join(self._dice.pick(_GIVEN_NAMES + _SURNAMES) for _ in range(self._dice.between(2, 8)))
        if self._strange_words and self._dice.chance(0.3):
            words = self._strange_word(self._dice.between(1, 3))
        return self._dice.pick(("跟我说：", "请重复：", "跟我念：", "重复一遍：")) + words, words

    def name(self) -> str:
        """Return an invented name of two or three characters, or a nickname."""
        given = "".join(self._dice.pick(_GIVEN_NAMES + _SURNAMES) for _ in range(self._dice.between(1, 2)))
        return self._dice.pick(("小", self._dice.pick(_SURNAMES), self._dice.pick(_SURNAMES))) + given

    def _strange_word(self, length: int) -> str:
        return "".join(chr(self._dice.between(0x4E00, 0x9FA5)) for _ in range(length))

    def _remembered_name(self) -> Dialogue:
        name = self.name()
        introduce = self._dice.pick(("我叫{n}", "我的名字是{n}", "我是{n}", "你可以叫我{n}", "你好，我叫{n}"))
        exchanges = [(self._punctuate(introduce.format(n=name), "。"), _CALLED.format(name=name))]
        exchanges += [self.exchange() for _ in range(self._dice.between(0, 2))]
        ask = self._dice.pick(("我叫什么名字", "我叫什么", "你还记得我的名字吗", "我是谁", "我的名字是什么"))
        return _join([*exchanges, (self._punctuate(ask, "？"), f"你叫{name}。")])

    def _guide(self) -> Dialogue:
        system = self._dice.pick(_GUIDE_PROMPTS)
        exchanges = [self.sights() for _ in range(self._dice.between(0, 2))]
        guided = [(q, a + self._dice.pick(("祝您玩得开心！", "我带您慢慢逛。"))) for q, a in exchanges]
        if self._dice.chance(0.3):
            city, sights = self._dice.pick(self._sights)
            guided = [(self._dice.pick(_GUIDE_RECOMMENDS), f"推荐您去{city}，看看{sights}。"), *guided]
        opening: Dialogue = (turn(Role.SYSTEM, system),)
        if not guided or self._dice.chance(0.5):
            opening += (turn(Role.ASSISTANT, _GUIDE_GREETING),)
        elif self._dice.chance(0.5):
            guided = [(self._dice.pick(("你好", "您好", "你是谁")), _GUIDE_GREETING), *guided]
        return opening + _join(guided)

    def _punctuate(self, question: str, marks: str) -> str:
        """Append a mark to half of the questions that end in a Chinese character."""
        if question[-1] < "一" or self._dice.chance(0.5):
            return question
        mark = "？" if question[-1] in "吗呢么谁几哪" and "？" in marks else marks[0]
        return question + mark


def _split_pair(line: str) -> tuple[str, str]:
    left, right = line.split(":", 1)
    return left.strip(), right.strip()


def _join(exchanges: list[Exchange], system: str | None = None) -> Dialogue:
    messages: list[Message] = [] if system is None else [turn(Role.SYSTEM, system)]
    for question, answer in exchanges:
        messages += [turn(Role.USER, question), turn(Role.ASSISTANT, answer)]
    return tuple(messages)
