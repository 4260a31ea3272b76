"""Grad-CAM against what networks small enough to work it out by hand imply."""

import numpy as np
import pytest
import torch
from torch import nn

from dcls_mm.visualization import (
    NothingToExplain,
    detection_score,
    grad_cam,
    logit_score,
    overlay_map,
)


class Classifier(nn.Module):
    """A stage of two outputs, of which the last is averaged and mapped to logits."""

    def __init__(self, channels=4, classes=3):
        super().__init__()
        self.backbone = nn.Conv2d(2, channels, 3, padding=1)
        self.head = nn.Linear(channels, classes)

    def forward(self, x):
        return self.head(self.backbone(x).mean((2, 3)))


def test_of_averaged_features_it_is_the_class_activation_map():
    """There the gradient of logit c with respect to A_k is w_ck at every place, over
    their number, so the map is relu(sum_k w_ck A_k) over their number."""
    torch.manual_seed(0)
    model, image = Classifier(), torch.randn(1, 2, 5, 6)
    for label in (None, 0, 2):
        found = grad_cam(model.backbone, lambda: logit_score(model(image), label))  # noqa: B023
        with torch.no_grad():
            features = model.backbone(image)[0]
            row = model(image).argmax() if label is None else label
            weights = model.head.weight[row] / 30
            expected = sum(w * a for w, a in zip(weights, features)).relu()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert found.min() == 0 < found.max()


def test_worked_by_hand():
    """Logit 1 is 3 a + 5 b at one of two places: the mean gradients are 1.5 and 2.5."""
    features = torch.tensor([[[[1.0, -4.0]], [[2.0, 1.0]]]])
    stage = nn.Identity()
    head = torch.tensor([[0.0, 0.0], [3.0, 5.0]])
    where = torch.tensor([[True, False]])

    def score():
        logits = torch.einsum('ck,bkhw->bchw', head, stage(features))
        return logit_score(logits, 1, where)

    np.testing.assert_allclose(grad_cam(stage, score), [[6.5, 0.0]])  # -6 + 2.5 < 0


def test_levels_and_frozen_parts():
    class Levels(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 2, 2, 2), nn.Conv2d(2, 3, 2, 2)

        def forward(self, x):
            x = self.first(x)
            return x, self.second(x)

    stage = Levels().requires_grad_(False)
    image = torch.randn(1, 1, 8, 12)

    def score():
        return stage(image)[1].square().sum()

    assert grad_cam(stage, score).shape == (2, 3)
    assert not stage._forward_hooks
    with pytest.raises(ValueError, match='score does not depend on this output'):
        grad_cam(stage, score, level=0)  # a part that no gradient passes
    stage.requires_grad_(True)
    assert grad_cam(stage, score, level=0).shape == (4, 6)
    assert all(parameter.grad is None for parameter in stage.parameters())
    with pytest.raises(ValueError, match='level must be one of the 2 outputs'):
        grad_cam(stage, score, level=2)
    assert not stage._forward_hooks


def test_the_score_of_a_segmentor_counts_the_places_of_the_class():
    logits = torch.tensor([[[[2.0, 0.0, 9.0]], [[1.0, 5.0, 7.0]]]])
    assert logit_score(logits) == 11  # class 0, at two of three places
    assert logit_score(logits, 1) == 5
    assert logit_score(logits, 1, torch.tensor([[True, True, False]])) == 6
    assert logit_score(logits, where=torch.tensor([[False, True, False]])) == 5
    assert logit_score(logits[:, :1]) == 11
    with pytest.raises(NothingToExplain, match='class 0 has the largest logit nowhere'):
        logit_score(logits - torch.tensor([[[[9.0]], [[0.0]]]]), 0)


def test_the_score_of_a_detector_is_the_sum_of_logits():
    logits = torch.tensor([2.0, 1.0, -3.0, 0.5], requires_grad=True)
    labels = torch.tensor([1, 0, 1, 1])
    scores = logits.sigmoid()
    assert detection_score(scores, labels).item() == pytest.approx(2.5)
    assert detection_score(scores, labels, least=0.0).item() == pytest.approx(-0.5)
    assert detection_score(scores, labels, 0).item() == pytest.approx(1)
    (gradient,) = torch.autograd.grad(detection_score(scores, labels), logits)
    np.testing.assert_allclose(gradient, [1, 0, 0, 1], rtol=1e-5)
    for label, least in ((2, 0.3), (None, 0.99)):
        with pytest.raises(NothingToExplain, match='there is no detection'):
            detection_score(scores, labels, label, least)
    with pytest.raises(NothingToExplain, match='no detection with a score of 0.3'):
        detection_score(scores[:0], labels[:0])
    with pytest.raises(ValueError, match='scores of this detector have no gradients'):
        detection_score(scores.detach(), labels)


def test_what_does_not_fit_is_named():
    model, image = Classifier(), torch.randn(1, 2, 5, 6)
    stage = model.backbone
    for score, message in (
        (lambda: torch.ones(()), 'must run once for the score, it ran 0 times'),
        (lambda: stage(image).sum() + stage(image).sum(), 'it ran 2 times'),
        (lambda: model(image), r'a tensor of one number, got \(1, 3\)'),
        (lambda: model(image).sum().item(), 'one number, got float'),
        (lambda: model(image).sum().detach(), 'the model lets no gradient through'),
        (lambda: logit_score(model(image), 3), 'label must be one of 3 classes, got 3'),
        (lambda: logit_score([model(image)]), r'logits must be \(1, classes\)'),
        (lambda: model(image.expand(2, -1, -1, -1)).sum(), r'got \(2, 4, 5, 6\)'),
    ):
        with pytest.raises(ValueError, match=message):
            grad_cam(stage, score)
        assert not stage._forward_hooks


def test_overlay():
    image = np.full((4, 6, 3), 90, np.uint8)
    np.testing.assert_array_equal(overlay_map(image, np.zeros((2, 3))), image)
    values = np.array([[0.0, 0.0, 5.0], [0.0, 0.0, 5.0]], np.float32)
    drawn = overlay_map(image, values)
    assert drawn.dtype == np.uint8 and drawn.shape == image.shape
    np.testing.assert_array_equal(drawn[:, :2], image[:, :2])
    # The brightest colour of cividis, (254, 232, 56), covers three quarters.
    np.testing.assert_allclose(drawn[0, -1], [213, 196, 65], atol=1.5)
    np.testing.assert_array_equal(overlay_map(image, 2 * values), drawn)
